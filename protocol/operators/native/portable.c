/* For any processor: 64 bits at a time. */

#include "binary.h"
#include "finish.h"
#include "words.h"

static int runs_here(void)
{
    return 1;
}

static void count(const Layer *layer, const uint8_t *const *window, size_t row_bytes, const uint8_t *packed,
                  size_t outputs, uint16_t (*counts)[BLOCK])
{
    size_t bytes = words_window_bytes(layer->channels, layer->kernel), words = bytes / sizeof(uint64_t);
    uint64_t bits[LARGEST_ROW / sizeof(uint64_t)];
    for (int p = 0; p < PIXELS; p++) {
        words_gather(layer, window[p], row_bytes, bytes, (uint8_t *)bits);
        for (size_t o = 0; o < outputs; o++) {
            const uint8_t *weight = packed + o * bytes;
            unsigned differences = 0;
            for (size_t w = 0; w < words; w++) {
                uint64_t word;
                memcpy(&word, weight + w * sizeof word, sizeof word);
                differences += (unsigned)__builtin_popcountll(word ^ bits[w]);
            }
            counts[p][o] = (uint16_t)differences;
        }
    }
}

static void finish(const Layer *layer, size_t first, size_t outputs, const uint16_t *counts, const uint8_t *shortcut,
                   uint8_t *out)
{
    finish_block(layer, first, outputs, counts, shortcut, out);
}

const Path binary_portable = {
    "portable", runs_here, words_pixel_bytes, words_block_bytes, words_pack, words_binarize, count, finish,
};
