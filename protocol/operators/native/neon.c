/* aarch64: 128 bits at a time, whose ones every such processor counts byte by byte. */

#include "binary.h"

#ifdef __aarch64__

#include <arm_neon.h>

#include "finish.h"
#include "words.h"

enum { MOST_WORDS = 255 / 8, OUTPUTS = 4 /* with four pixels, sixteen sums in registers */ };

static int runs_here(void)
{
    return 1;
}

static void count(const Layer *layer, const uint8_t *const *window, size_t row_bytes, const uint8_t *packed,
                  size_t outputs, uint16_t (*counts)[BLOCK])
{
    size_t bytes = words_window_bytes(layer->channels, layer->kernel);
    uint8_t bits[PIXELS][LARGEST_ROW];
    for (int p = 0; p < PIXELS; p++)
        words_gather(layer, window[p], row_bytes, bytes, bits[p]);
    for (size_t o = 0; o < outputs; o += OUTPUTS) { /* what is too many is there, and zero */
        uint32_t sums[PIXELS][OUTPUTS] = {{0}};
        for (size_t start = 0, end; start < bytes; start = end) {
            end = start + MOST_WORDS * WORD < bytes ? start + MOST_WORDS * WORD : bytes;
            uint8x16_t ones[PIXELS][OUTPUTS];
            for (int p = 0; p < PIXELS; p++)
                for (int i = 0; i < OUTPUTS; i++)
                    ones[p][i] = vdupq_n_u8(0);
            for (size_t at = start; at < end; at += WORD) {
                uint8x16_t weight[OUTPUTS];
                for (int i = 0; i < OUTPUTS; i++)
                    weight[i] = vld1q_u8(packed + (o + i) * bytes + at);
                for (int p = 0; p < PIXELS; p++) {
                    uint8x16_t word = vld1q_u8(bits[p] + at);
                    for (int i = 0; i < OUTPUTS; i++)
                        ones[p][i] = vaddq_u8(ones[p][i], vcntq_u8(veorq_u8(word, weight[i])));
                }
            }
            for (int p = 0; p < PIXELS; p++)
                for (int i = 0; i < OUTPUTS; i++)
                    sums[p][i] += vaddlvq_u8(ones[p][i]);
        }
        for (int p = 0; p < PIXELS; p++)
            for (int i = 0; i < OUTPUTS; i++)
                counts[p][o + i] = (uint16_t)sums[p][i];
    }
}

static void finish(const Layer *layer, size_t first, size_t outputs, const uint16_t *counts, const uint8_t *shortcut,
                   uint8_t *out)
{
    finish_block(layer, first, outputs, counts, shortcut, out);
}

const Path binary_neon = {
    "neon", runs_here, words_pixel_bytes, words_block_bytes, words_pack, words_binarize, count, finish,
};

#endif
