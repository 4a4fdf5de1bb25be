/* Windows as rows of bits: for processors that count bits, and for any other. */

#ifndef BITFLEET_WORDS_H
#define BITFLEET_WORDS_H

#include <string.h>

#include "binary.h"

enum { WORD = 16, LARGEST_ROW = (LARGEST_WINDOW + 7 * LARGEST_KERNEL * LARGEST_KERNEL) / 8 + WORD };

static inline size_t words_pixel_bytes(size_t channels)
{
    return (channels + 7) / 8;
}

/* Of one window, filled up to whole words with zeros. */
static inline size_t words_window_bytes(size_t channels, size_t kernel)
{
    return (kernel * kernel * words_pixel_bytes(channels) + WORD - 1) / WORD * WORD;
}

static inline size_t words_block_bytes(const Definition *definition)
{
    return BLOCK * words_window_bytes(definition->channels, definition->kernel);
}

static inline void words_pack(const Definition *d, size_t block, uint8_t *packed)
{
    size_t places = d->kernel * d->kernel, pixel = words_pixel_bytes(d->channels);
    size_t window = words_window_bytes(d->channels, d->kernel);
    memset(packed, 0, BLOCK * window);
    for (size_t o = 0; o < BLOCK && block * BLOCK + o < d->outputs; o++)
        for (size_t place = 0; place < places; place++)
            for (size_t c = 0; c < d->channels; c++)
                packed[o * window + place * pixel + c / 8] |=
                    (uint8_t)(binary_weight(d, block * BLOCK + o, c, place) << c % 8);
}

static inline void words_binarize(const Layer *layer, const uint8_t *x, size_t pixels, uint8_t *bits)
{
    for (size_t p = 0; p < pixels; p++, x += layer->channels, bits += layer->pixel_bytes)
        for (size_t c = 0; c < layer->channels; c += 8) {
            unsigned byte = 0;
            for (size_t i = 0; i < 8 && c + i < layer->channels; i++)
                byte |= (unsigned)(x[c + i] >= layer->least[c + i] && layer->possible[c + i]) << i;
            bits[c / 8] = (uint8_t)byte;
        }
}

/* A window's runs one after the other; its last word is filled up with zeros. */
static inline void words_gather(const Layer *layer, const uint8_t *window, size_t row_bytes, size_t bytes, uint8_t *out)
{
    size_t run = layer->kernel * layer->pixel_bytes;
    memset(out + bytes - WORD, 0, WORD);
    for (size_t row = 0; row < layer->kernel; row++)
        memcpy(out + row * run, window + row * row_bytes, run);
}

#endif
