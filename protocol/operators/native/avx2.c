/* x86 with AVX2: sixteen answers in a register.
 *
 * Four bits of a window and four of a weight differ in `differences[window bits][weight bits]` places. A row of that
 * table is 16 bytes, and one byte shuffle looks 32 weights up in it at once: with the addition that is two
 * instructions for 128 products, where counting the ones of an exclusive or takes four. The way is that of tables for
 * weights of few bits (J. Wei et al., "T-MAC", EuroSys 2025, arXiv 2407.00088), turned around: here it is the
 * activations that have so few values that their sixteen tables are known beforehand.
 */

#include "binary.h"

#ifdef __x86_64__

#include <immintrin.h>
#include <string.h>

#include "finish.h"

#define AVX2 __attribute__((target("avx2")))
#define UNROLLED _Pragma("GCC unroll 4")
#define INLINED __attribute__((target("avx2"), always_inline)) static inline
#define ROW(bits) {D(bits, 0), D(bits, 1), D(bits, 2), D(bits, 3), D(bits, 4), D(bits, 5), D(bits, 6), D(bits, 7), \
                   D(bits, 8), D(bits, 9), D(bits, 10), D(bits, 11), D(bits, 12), D(bits, 13), D(bits, 14), D(bits, 15)}
#define D(a, b) ONE(a, b, 1) + ONE(a, b, 2) + ONE(a, b, 4) + ONE(a, b, 8)
#define ONE(a, b, bit) (((a) ^ (b)) & (bit) ? 1 : 0)

enum {
    AT_ONCE = 4,                /* channels of a byte of bits, and differences that a step can add */
    MOST_STEPS = 255 / AT_ONCE, /* whose sum a byte holds */
    HALF = BLOCK / 2,
};

static const uint8_t differences[16][16] __attribute__((aligned(64))) = {
    ROW(0), ROW(1), ROW(2), ROW(3), ROW(4), ROW(5), ROW(6), ROW(7),
    ROW(8), ROW(9), ROW(10), ROW(11), ROW(12), ROW(13), ROW(14), ROW(15),
};

static int runs_here(void)
{
    return __builtin_cpu_supports("avx2");
}

/* A byte of bits is where its row of the table starts: 16 times the four bits. */
static size_t pixel_bytes(size_t channels)
{
    return channels / AT_ONCE;
}

static size_t block_bytes(const Definition *d)
{
    return d->kernel * d->kernel * pixel_bytes(d->channels) * BLOCK;
}

/* Where in 32 bytes a weight has to lie so that widening in halves of registers puts its sum in place. */
static size_t lane(size_t output)
{
    static const uint8_t quarter[4] = {0, 2, 1, 3};
    return output % HALF % 8 + 8u * quarter[output % HALF / 8] + output / HALF * HALF;
}

static void pack(const Definition *d, size_t block, uint8_t *packed)
{
    size_t groups = pixel_bytes(d->channels), places = d->kernel * d->kernel;
    memset(packed, 0, block_bytes(d));
    for (size_t o = 0; o < BLOCK && block * BLOCK + o < d->outputs; o++)
        for (size_t place = 0; place < places; place++)
            for (size_t c = 0; c < d->channels; c++)
                packed[(place * groups + c / AT_ONCE) * BLOCK + lane(o)] |=
                    (uint8_t)(binary_weight(d, block * BLOCK + o, c, place) << c % AT_ONCE);
}

/* Four bits into the upper half of each byte. */
static uint64_t spread(uint32_t bits)
{
    uint64_t word = bits;
    word = (word | word << 16) & 0x0000ffff0000ffff;
    word = (word | word << 8) & 0x00ff00ff00ff00ff;
    word = (word | word << 4) & 0x0f0f0f0f0f0f0f0f;
    return word << 4;
}

/* `count` times the same channels, `here` of them, `stride` bytes apart. */
AVX2 static void binarize_channels(const uint8_t *least, const uint8_t *possible, const uint8_t *x, size_t stride,
                                   size_t count, size_t here, uint8_t *bits)
{
    __m256i reach = _mm256_loadu_si256((const __m256i *)least), allowed = _mm256_loadu_si256((const __m256i *)possible);
    for (size_t n = 0; n < count; n++, x += stride, bits += stride / AT_ONCE) {
        uint8_t edge[VECTOR] = {0};
        const uint8_t *from = here < VECTOR ? memcpy(edge, x, here) : x;
        __m256i values = _mm256_loadu_si256((const __m256i *)from);
        __m256i reached = _mm256_cmpeq_epi8(_mm256_max_epu8(values, reach), values);
        uint64_t word = spread((uint32_t)_mm256_movemask_epi8(_mm256_and_si256(reached, allowed)));
        memcpy(bits, &word, here < VECTOR ? here / AT_ONCE : sizeof word);
    }
}

/* A register of channels at a time, and so for all pixels; or several pixels at a time, where they fill it. */
AVX2 static void binarize(const Layer *layer, const uint8_t *x, size_t pixels, uint8_t *bits)
{
    size_t channels = layer->channels, several = VECTOR % channels == 0 ? VECTOR / channels : 1;
    size_t whole = pixels / several, done = whole * several, stride = several * channels;
    for (size_t c = 0; c < channels; c += VECTOR) {
        size_t here = channels - c < VECTOR && several == 1 ? channels - c : VECTOR;
        const uint8_t *least = layer->least + c, *possible = layer->possible + c;
        binarize_channels(least, possible, x + c, stride, whole, here, bits + c / AT_ONCE);
        if (done < pixels)
            binarize_channels(least, possible, x + done * channels, stride, 1, (pixels - done) * channels,
                              bits + done * layer->pixel_bytes);
    }
}

INLINED void widen(uint16_t *sums, __m256i bytes)
{
    __m256i nothing = _mm256_setzero_si256(), *to = (__m256i *)sums;
    to[0] = _mm256_add_epi16(to[0], _mm256_unpacklo_epi8(bytes, nothing));
    to[1] = _mm256_add_epi16(to[1], _mm256_unpackhi_epi8(bytes, nothing));
}

/* One pixel's four bits against the weights of all outputs of the block, or of its first half. */
#define STEP(window, left, right)                                                                                    \
    row = _mm256_broadcastsi128_si256(*(const __m128i *)((const uint8_t *)differences + (window)[step]));            \
    left = _mm256_add_epi8(left, _mm256_shuffle_epi8(row, weights_left));                                            \
    if (whole)                                                                                                       \
    right = _mm256_add_epi8(right, _mm256_shuffle_epi8(row, weights_right))

INLINED void count_block(const Layer *layer, const uint8_t *const *window,
                                                                  size_t row_bytes, const uint8_t *packed,
                                                                  uint16_t (*counts)[BLOCK], const int whole)
{
    for (int p = 0; p < PIXELS; p++)
        memset(counts[p], 0, (whole ? BLOCK : HALF) * sizeof counts[p][0]);
    for (size_t row_number = 0; row_number < layer->kernel; row_number++) {
        const uint8_t *a = window[0] + row_number * row_bytes, *b = window[1] + row_number * row_bytes;
        const uint8_t *c = window[2] + row_number * row_bytes, *d = window[3] + row_number * row_bytes;
        size_t steps, left = layer->kernel * layer->pixel_bytes;
        for (; left > 0; left -= steps, a += steps, b += steps, c += steps, d += steps) {
            steps = left < MOST_STEPS ? left : MOST_STEPS;
            __m256i a_left = _mm256_setzero_si256(), a_right = a_left, b_left = a_left, b_right = a_left;
            __m256i c_left = a_left, c_right = a_left, d_left = a_left, d_right = a_left;
            size_t step = 0;
            do {
                __m256i weights_left = _mm256_load_si256((const __m256i *)packed), row;
                __m256i weights_right = _mm256_load_si256((const __m256i *)(packed + HALF));
                packed += BLOCK;
                STEP(a, a_left, a_right);
                STEP(b, b_left, b_right);
                STEP(c, c_left, c_right);
                STEP(d, d_left, d_right);
                /* Keeps GCC from holding each sum in two registers, of which there are not enough. */
                __asm__("" : "+x"(a_left), "+x"(a_right), "+x"(b_left), "+x"(b_right), "+x"(c_left), "+x"(c_right),
                        "+x"(d_left), "+x"(d_right));
            } while (++step < steps);
            widen(counts[0], a_left), widen(counts[1], b_left), widen(counts[2], c_left), widen(counts[3], d_left);
            if (whole) {
                widen(counts[0] + HALF, a_right), widen(counts[1] + HALF, b_right);
                widen(counts[2] + HALF, c_right), widen(counts[3] + HALF, d_right);
            }
            __asm__ volatile("" ::: "memory"); /* and from keeping the wide sums in registers meanwhile */
        }
    }
}

AVX2 static void count(const Layer *layer, const uint8_t *const *window, size_t row_bytes, const uint8_t *packed,
                       size_t outputs, uint16_t (*counts)[BLOCK])
{
    if (outputs > HALF)
        count_block(layer, window, row_bytes, packed, counts, 1);
    else
        count_block(layer, window, row_bytes, packed, counts, 0);
}

/* Eight levels as integers; what is not a number, or too small for any, becomes the smallest integer there is. */
INLINED __m256i rounded(__m256 level)
{
    return _mm256_cvtps_epi32(_mm256_min_ps(_mm256_set1_ps(INT8_MAX), level));
}

/* Four times eight levels, clipped to bytes. */
INLINED __m256i bytes_of(const __m256i *levels)
{
    __m256i low = _mm256_packs_epi32(levels[0], levels[1]), high = _mm256_packs_epi32(levels[2], levels[3]);
    const __m256i in_order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    return _mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, high), in_order);
}

INLINED __m256i convolved(const Layer *layer, size_t first, const uint16_t *counts, const int eights)
{
    __m128i unit = _mm_cvtsi32_si128(layer->unit - 1);
    __m256i levels[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256()};
    UNROLLED for (int i = 0; i < eights; i++) {
        __m256i count = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(counts + 8 * i)));
        __m256i offset = _mm256_loadu_si256((const __m256i *)(layer->offset + first + 8 * i));
        __m256 sum = _mm256_cvtepi32_ps(_mm256_sub_epi32(offset, _mm256_sll_epi32(count, unit)));
        levels[i] = rounded(_mm256_mul_ps(sum, _mm256_loadu_ps(layer->factor + first + 8 * i)));
    }
    return bytes_of(levels);
}

INLINED __m256i bent(const Layer *layer, size_t first, __m256i total, const int eights)
{
    __m256 step = _mm256_set1_ps(layer->step_out);
    __m128i halves[2] = {_mm256_castsi256_si128(total), _mm256_extracti128_si256(total, 1)};
    __m256i levels[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256()};
    UNROLLED for (int i = 0; i < eights; i++) {
        __m128i eight = i % 2 ? _mm_srli_si128(halves[i / 2], 8) : halves[i / 2];
        __m256 v = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(eight)), step);
        v = _mm256_sub_ps(v, _mm256_loadu_ps(layer->shift_in + first + 8 * i));
        __m256 below = _mm256_mul_ps(v, _mm256_loadu_ps(layer->slope + first + 8 * i));
        v = _mm256_blendv_ps(v, below, v); /* by the sign bit: at zero either gives a zero */
        v = _mm256_add_ps(v, _mm256_loadu_ps(layer->shift_out + first + 8 * i));
        levels[i] = rounded(_mm256_div_ps(v, step));
    }
    return bytes_of(levels);
}

/* Eight times `eights` outputs, 1, 2 or 4. Flipping the highest bit of a byte subtracts 128, or adds it. */
INLINED void finish_bytes(const Layer *layer, size_t first,
                                                                   const uint16_t *counts, const uint8_t *shortcut,
                                                                   uint8_t *out, const int eights)
{
    const __m256i zero = _mm256_set1_epi8(INT8_MIN);
    __m256i level = convolved(layer, first, counts, eights);
    if (layer->has_residual) {
        __m256i added = zero;
        memcpy(&added, shortcut, 8 * (size_t)eights);
        level = bent(layer, first, _mm256_adds_epi8(level, _mm256_xor_si256(added, zero)), eights);
    }
    level = _mm256_xor_si256(level, zero);
    memcpy(out, &level, 8 * (size_t)eights);
}

static const uint8_t *beside(const uint8_t *shortcut, size_t done)
{
    return shortcut == NULL ? NULL : shortcut + done;
}

/* Where all values are bytes around 128, clipping is what packing and saturating addition do anyway. */
AVX2 static void finish(const Layer *layer, size_t first, size_t outputs, const uint16_t *counts,
                        const uint8_t *shortcut, uint8_t *out)
{
    size_t done = 0;
    if (layer->zero == 128 && layer->low == INT8_MIN && layer->high == INT8_MAX) {
        for (; outputs - done >= 32; done += 32)
            finish_bytes(layer, first + done, counts + done, beside(shortcut, done), out + done, 4);
        for (; outputs - done >= 16; done += 16)
            finish_bytes(layer, first + done, counts + done, beside(shortcut, done), out + done, 2);
        for (; outputs - done >= 8; done += 8)
            finish_bytes(layer, first + done, counts + done, beside(shortcut, done), out + done, 1);
    }
    if (done < outputs)
        finish_block(layer, first + done, outputs - done, counts + done, beside(shortcut, done), out + done);
}

const Path binary_avx2 = {"avx2", runs_here, pixel_bytes, block_bytes, pack, binarize, count, finish};

#endif
