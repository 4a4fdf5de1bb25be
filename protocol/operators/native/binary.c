/* What all paths share: a definition made ready, and the walk over pictures, blocks of outputs and pixels. */

#include <stdlib.h>
#include <string.h>

#include "binary.h"

const Path *binary_fastest(void)
{
    const Path *const *path = binary_paths;
    while (!(*path)->runs_here())
        path++;
    return *path;
}

static const char *fault(const Definition *d)
{
    if (d->channels == 0 || d->channels % 4 != 0)
        return "channels: expected a multiple of 4";
    if (d->outputs == 0 || d->stride == 0 || d->kernel == 0 || d->kernel > LARGEST_KERNEL || d->padding >= d->kernel)
        return "expected outputs and a stride, a kernel of 1 to 7 and padding below it";
    if (d->channels > LARGEST_WINDOW || d->kernel * d->kernel * d->channels > LARGEST_WINDOW)
        return "window: expected at most 65535 bits";
    if (d->levels != 1 && d->levels != 2)
        return "levels: expected 1 or 2";
    if (d->low < 0 || d->low > d->high || d->high > 255 || d->zero < 0 || d->zero > 255)
        return "expected 0 <= low <= high <= 255 and a zero point of 8 bits";
    if (!(d->step_in > 0) || !(d->step_out > 0))
        return "scales: expected more than 0";
    return NULL;
}

static void *filled(size_t count, size_t size, const void *from, size_t given)
{
    void *made = calloc(count, size);
    if (made != NULL && from != NULL)
        memcpy(made, from, given * size);
    return made;
}

/* A threshold of 256 is never reached, one below 1 always. */
static void spread_thresholds(const Definition *d, Layer *layer)
{
    for (size_t i = 0; i < d->channels + VECTOR; i++) {
        int32_t threshold = d->threshold[i % d->channels];
        layer->least[i] = (uint8_t)(threshold < 0 ? 0 : threshold > 255 ? 255 : threshold);
        layer->possible[i] = threshold > 255 ? 0 : 255;
    }
}

static int32_t offset_of(const Definition *d, size_t output)
{
    size_t places = d->kernel * d->kernel, window = places * d->channels;
    int64_t sum = (int64_t)window;
    if (d->levels == 1) {
        int64_t weights = -(int64_t)window;
        for (size_t channel = 0; channel < d->channels; channel++)
            for (size_t place = 0; place < places; place++)
                weights += 2 * (int64_t)binary_weight(d, output, channel, place);
        sum = (sum + weights) / 2;
    }
    return (int32_t)(sum + d->bias[output]);
}

const char *binary_prepare(const Definition *d, const Path *path, Layer **made)
{
    *made = NULL;
    const char *wrong = fault(d);
    if (wrong != NULL)
        return wrong;
    Layer *layer = calloc(1, sizeof *layer);
    if (layer == NULL)
        return "out of memory";
    size_t blocks = (d->outputs + BLOCK - 1) / BLOCK, all = blocks * BLOCK;
    layer->path = path;
    layer->channels = d->channels, layer->outputs = d->outputs, layer->blocks = blocks;
    layer->kernel = d->kernel, layer->stride = d->stride, layer->padding = d->padding;
    layer->pixel_bytes = path->pixel_bytes(d->channels), layer->block_bytes = path->block_bytes(d);
    layer->unit = d->levels, layer->has_residual = d->slope != NULL;
    layer->zero = (float)d->zero, layer->low = (float)(d->low - d->zero), layer->high = (float)(d->high - d->zero);
    layer->step_out = d->step_out;
    layer->least = filled(d->channels + VECTOR, 1, NULL, 0);
    layer->possible = filled(d->channels + VECTOR, 1, NULL, 0);
    layer->offset = filled(all, sizeof(int32_t), NULL, 0);
    layer->factor = filled(all, sizeof(float), NULL, 0);
    layer->slope = filled(all, sizeof(float), d->slope, d->outputs);
    layer->shift_in = filled(all, sizeof(float), d->shift_in, d->outputs);
    layer->shift_out = filled(all, sizeof(float), d->shift_out, d->outputs);
    layer->packed = aligned_alloc(BLOCK, blocks * layer->block_bytes);
    if (!layer->least || !layer->possible || !layer->offset || !layer->factor || !layer->slope || !layer->shift_in ||
        !layer->shift_out || !layer->packed) {
        binary_release(layer);
        return "out of memory";
    }
    spread_thresholds(d, layer);
    for (size_t output = 0; output < d->outputs; output++) {
        float step = d->step_in * d->weight_step[output];
        layer->factor[output] = step / d->step_out;
        layer->offset[output] = offset_of(d, output);
    }
    for (size_t block = 0; block < blocks; block++)
        path->pack(d, block, layer->packed + block * layer->block_bytes);
    *made = layer;
    return NULL;
}

void binary_release(Layer *layer)
{
    if (layer == NULL)
        return;
    free(layer->least), free(layer->possible), free(layer->offset), free(layer->factor), free(layer->slope);
    free(layer->shift_in), free(layer->shift_out), free(layer->packed), free(layer);
}

size_t binary_edge(const Layer *layer, size_t edge)
{
    size_t padded = edge + 2 * layer->padding;
    return padded < layer->kernel ? 0 : (padded - layer->kernel) / layer->stride + 1;
}

typedef struct {
    const Layer *layer;
    const uint8_t *x, *shortcut;
    uint8_t *y, *bits;
    size_t height, width, out_height, out_width, row_bytes, picture_bytes;
} Run;

/* Row `number` of all pictures' rows. */
static void binarize_row(void *state, size_t number)
{
    const Run *run = state;
    const Layer *layer = run->layer;
    size_t picture = number / run->height, row = number % run->height + layer->padding;
    uint8_t *bits = run->bits + picture * run->picture_bytes + row * run->row_bytes;
    const uint8_t *x = run->x + number * run->width * layer->channels;
    layer->path->binarize(layer, x, run->width, bits + layer->padding * layer->pixel_bytes);
}

/* One block of outputs for one picture. */
static void compute_block(void *state, size_t number)
{
    const Run *run = state;
    const Layer *layer = run->layer;
    size_t picture = number / layer->blocks, block = number % layer->blocks, first = block * BLOCK;
    size_t here = layer->outputs - first < BLOCK ? layer->outputs - first : BLOCK;
    size_t pixels = run->out_height * run->out_width;
    const uint8_t *bits = run->bits + picture * run->picture_bytes;
    const uint8_t *packed = layer->packed + block * layer->block_bytes;
    uint16_t counts[PIXELS][BLOCK] __attribute__((aligned(BLOCK)));
    const uint8_t *next = bits;
    size_t row = 0, column = 0;
    for (size_t start = 0; start < pixels; start += PIXELS) {
        const uint8_t *window[PIXELS];
        for (size_t p = 0; p < PIXELS; p++) { /* beyond the end, the last one again */
            window[p] = next;
            if (start + p + 1 < pixels && ++column == run->out_width)
                column = 0, row++;
            next = bits + row * layer->stride * run->row_bytes + column * layer->stride * layer->pixel_bytes;
        }
        layer->path->count(layer, window, run->row_bytes, packed, here, counts);
        for (size_t p = 0; p < PIXELS && start + p < pixels; p++) {
            size_t at = (picture * pixels + start + p) * layer->outputs + first;
            const uint8_t *shortcut = layer->has_residual ? run->shortcut + at : NULL;
            layer->path->finish(layer, first, here, counts[p], shortcut, run->y + at);
        }
    }
}

int binary_run(const Layer *layer, const uint8_t *x, const uint8_t *shortcut, uint8_t *y, size_t pictures,
               size_t height, size_t width, ParallelFor parallel, void *context)
{
    Run run = {layer, x, shortcut, y, NULL, height, width, binary_edge(layer, height), binary_edge(layer, width), 0, 0};
    run.row_bytes = (width + 2 * layer->padding) * layer->pixel_bytes;
    run.picture_bytes = (height + 2 * layer->padding) * run.row_bytes;
    if (pictures == 0 || run.out_height == 0 || run.out_width == 0)
        return 0;
    run.bits = calloc(pictures, run.picture_bytes); /* what lies outside a picture is a zero bit */
    if (run.bits == NULL)
        return -1;
    parallel(context, binarize_row, pictures * height, &run);
    parallel(context, compute_block, pictures * layer->blocks, &run);
    free(run.bits);
    return 0;
}
