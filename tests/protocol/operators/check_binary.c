/* Holds every path that this processor runs to the definition in binary.h, on random layers, hostile ones and edges.
 *
 * Prints a line for each path and ends with 1 at the first difference. Arguments: how many layers, seed.
 */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "binary.h"

static uint64_t state;

static uint32_t next(void)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33);
}

static size_t between(size_t low, size_t high)
{
    return low + next() % (high - low + 1);
}

static float real(float low, float high)
{
    return low + (high - low) * (float)(next() / 2147483648.0);
}

static void *made(size_t bytes)
{
    uint8_t *memory = malloc(bytes); /* exactly as large as it says, so that a sanitizer sees every step beyond */
    for (size_t i = 0; i < bytes; i++)
        memory[i] = (uint8_t)next();
    return memory;
}

static float *reals(size_t count, float low, float high)
{
    float *values = malloc(count * sizeof *values);
    for (size_t i = 0; i < count; i++)
        values[i] = real(low, high);
    return values;
}

static int32_t *integers(size_t count, int32_t low, int32_t high)
{
    int32_t *values = malloc(count * sizeof *values);
    for (size_t i = 0; i < count; i++)
        values[i] = low + (int32_t)(next() % (uint32_t)(high - low + 1));
    return values;
}

static float clip(float level, float low, float high)
{
    return fminf(fmaxf(level, low), high);
}

/* One output, word for word as binary.h says it. */
static uint8_t expected(const Definition *d, const uint8_t *x, size_t height, size_t width, size_t row, size_t column,
                        size_t output, uint8_t shortcut)
{
    int64_t sum = 0;
    for (size_t ky = 0; ky < d->kernel; ky++)
        for (size_t kx = 0; kx < d->kernel; kx++) {
            size_t y = row * d->stride + ky, at = column * d->stride + kx;
            int inside = y >= d->padding && y - d->padding < height && at >= d->padding && at - d->padding < width;
            for (size_t c = 0; c < d->channels; c++) {
                size_t pixel = inside ? ((y - d->padding) * width + at - d->padding) * d->channels + c : 0;
                int one = inside && x[pixel] >= d->threshold[c];
                int value = d->levels == 2 ? 2 * one - 1 : one;
                size_t bit = ((output * d->channels + c) * d->kernel + ky) * d->kernel + kx;
                sum += d->weight[bit / 8] >> bit % 8 & 1 ? value : -value;
            }
        }
    float low = (float)(d->low - d->zero), high = (float)(d->high - d->zero);
    float factor = d->step_in * d->weight_step[output];
    factor = factor / d->step_out;
    float q = clip(rintf((float)(int32_t)(sum + d->bias[output]) * factor), low, high);
    if (d->slope != NULL) {
        float v = clip(q + (float)((int)shortcut - d->zero), low, high) * d->step_out;
        v = v - d->shift_in[output];
        if (!(v > 0))
            v = v * d->slope[output];
        v = v + d->shift_out[output];
        q = clip(rintf(v / d->step_out), low, high);
    }
    return (uint8_t)((int)q + d->zero);
}

static void in_turn(void *context, void (*task)(void *, size_t), size_t count, void *of)
{
    (void)context;
    for (size_t number = count; number-- > 0;)
        task(of, number);
}

static int compare(const Definition *d, const Path *path, size_t pictures, size_t height, size_t width)
{
    Layer *layer;
    const char *wrong = binary_prepare(d, path, &layer);
    if (wrong != NULL) {
        printf("%s: refuses a sound layer: %s\n", path->name, wrong);
        return 1;
    }
    size_t rows = binary_edge(layer, height), columns = binary_edge(layer, width);
    size_t outputs = pictures * rows * columns * d->outputs;
    uint8_t *x = made(pictures * height * width * d->channels), *shortcut = made(outputs), *y = made(outputs);
    int differs = binary_run(layer, x, d->slope ? shortcut : NULL, y, pictures, height, width, in_turn, NULL);
    for (size_t i = 0; i < outputs && !differs; i++) {
        size_t output = i % d->outputs, column = i / d->outputs % columns;
        size_t row = i / d->outputs / columns % rows, picture = i / d->outputs / columns / rows;
        const uint8_t *one = x + picture * height * width * d->channels;
        uint8_t right = expected(d, one, height, width, row, column, output, shortcut[i]);
        if (y[i] != right) {
            printf("%s: picture %zu, row %zu, column %zu, output %zu is %d, expected %d (C %zu, O %zu, K %zu, stride"
                   " %zu, padding %zu, levels %d)\n", path->name, picture, row, column, output, y[i], right,
                   d->channels, d->outputs, d->kernel, d->stride, d->padding, d->levels);
            differs = 1;
        }
    }
    free(x), free(shortcut), free(y);
    binary_release(layer);
    return differs;
}

static int random_layer(const Path *path, int wide)
{
    size_t kernel = (size_t[]){1, 3, 3, 2, 5, 7}[next() % 6];
    Definition d = {
        .channels = wide ? 64 * between(1, 8) : 4 * between(1, 40), .outputs = wide ? between(60, 200) : between(1, 140),
        .kernel = kernel, .stride = between(1, 3), .padding = next() % kernel, .levels = (int)between(1, 2),
        .step_in = real(0.001f, 1), .step_out = real(0.01f, 2), .zero = next() % 2 ? 128 : 0, .low = 0, .high = 255,
    };
    if (next() % 3 == 0)
        d.high = d.zero + (int)between(0, 15);
    size_t bits = d.outputs * d.channels * d.kernel * d.kernel;
    int32_t *threshold = integers(d.channels, -2, 258), *bias = integers(d.outputs, -500, 500);
    uint8_t *weight = made((bits + 7) / 8);
    float *step = reals(d.outputs, -0.1f, 0.1f), *slope = reals(d.outputs, -0.5f, 1.5f);
    float *shift_in = reals(d.outputs, -2, 2), *shift_out = reals(d.outputs, -2, 2);
    d.threshold = threshold, d.bias = bias, d.weight = weight, d.weight_step = step;
    if (next() % 2)
        d.slope = slope, d.shift_in = shift_in, d.shift_out = shift_out;
    size_t least = d.kernel > 2 * d.padding ? d.kernel - 2 * d.padding : 1;
    int differs = compare(&d, path, between(1, 3), between(least, least + 6), between(least, least + 9));
    free(threshold), free(bias), free(weight), free(step), free(slope), free(shift_in), free(shift_out);
    return differs;
}

static int refuses(void)
{
    const Definition sound = {.channels = 4, .outputs = 1, .kernel = 3, .stride = 1, .padding = 1, .levels = 2,
                              .step_in = 1, .step_out = 1, .high = 255};
    Definition wrong[9];
    for (size_t i = 0; i < 9; i++)
        wrong[i] = sound;
    wrong[0].channels = 6, wrong[1].outputs = 0, wrong[2].kernel = 8, wrong[3].stride = 0, wrong[4].padding = 3;
    wrong[5].levels = 3, wrong[6].high = 256, wrong[7].step_out = NAN, wrong[8].channels = (size_t)1 << 62;
    for (size_t i = 0; i < 9; i++) {
        Layer *layer;
        if (binary_prepare(&wrong[i], binary_fastest(), &layer) == NULL) {
            printf("takes unsound layer %zu\n", i);
            return 1;
        }
    }
    return 0;
}

int main(int count, char **arguments)
{
    int layers = count > 1 ? atoi(arguments[1]) : 100;
    uint64_t seed = count > 2 ? strtoull(arguments[2], NULL, 10) : 0;
    if (refuses())
        return 1;
    for (const Path *const *path = binary_paths; *path != NULL; path++) {
        if (!(*path)->runs_here())
            continue;
        state = seed;
        for (int number = 0; number < layers; number++)
            if (random_layer(*path, number % 4 == 0))
                return 1;
        printf("%s: %d layers as defined\n", (*path)->name, layers);
    }
    return 0;
}
