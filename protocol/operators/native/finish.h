/* From differences to stored activations, written once for every path: each compiles it for its own processor. */

#ifndef BITFLEET_FINISH_H
#define BITFLEET_FINISH_H

#include <math.h>

#include "binary.h"

static inline float clipped(float level, float low, float high)
{
    level = level > low ? level : low; /* not a number becomes low */
    return level < high ? level : high;
}

/* At most BLOCK outputs. */
__attribute__((always_inline)) static inline void finish_block(const Layer *layer, size_t first, size_t outputs,
                                                              const uint16_t *restrict counts,
                                                              const uint8_t *restrict shortcut,
                                                              uint8_t *restrict out)
{
    const int32_t *restrict offset = layer->offset + first;
    const float *restrict factor = layer->factor + first;
    float low = layer->low, high = layer->high, zero = layer->zero, step = layer->step_out;
    uint32_t unit = (uint32_t)layer->unit;
    float level[BLOCK];
    for (size_t o = 0; o < outputs; o++) {
        int32_t sum = (int32_t)((uint32_t)offset[o] - unit * counts[o]); /* wraps around where a bias is absurd */
        level[o] = clipped(rintf((float)sum * factor[o]), low, high);
    }
    if (layer->has_residual) {
        const float *restrict slope = layer->slope + first;
        const float *restrict shift_in = layer->shift_in + first, *restrict shift_out = layer->shift_out + first;
        for (size_t o = 0; o < outputs; o++) {
            float v = clipped(level[o] + ((float)shortcut[o] - zero), low, high) * step - shift_in[o];
            v = v > 0 ? v : v * slope[o];
            level[o] = clipped(rintf((v + shift_out[o]) / step), low, high);
        }
    }
    for (size_t o = 0; o < outputs; o++)
        out[o] = (uint8_t)(int)(level[o] + zero);
}

#endif
