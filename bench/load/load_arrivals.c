/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/load/load_arrivals.h"

#include "bench/load/load_random.h"

#include <math.h>

/* Standard normal: Box and Muller. */
static double next_normal(uint64_t *state)
{
    const double two_pi = 6.283185307179586;
    double radius = sqrt(-2 * log(bt_load_next_uniform(state)));
    return radius * cos(two_pi * bt_load_next_uniform(state));
}

/* Gamma with that shape and mean 1: Marsaglia and Tsang, "A simple method for generating gamma
 * variables" (2000); shapes below 1 through their shape + 1. */
static double next_gamma(double shape, uint64_t *state)
{
    double boost = 1, k = shape;
    if (k < 1) {
        boost = pow(bt_load_next_uniform(state), 1 / k);
        k += 1;
    }
    double d = k - 1.0 / 3, c = 1 / sqrt(9 * d);
    for (;;) {
        double x = next_normal(state), v = 1 + c * x;
        if (v <= 0)
            continue;
        v = v * v * v;
        if (log(bt_load_next_uniform(state)) < x * x / 2 + d - d * v + d * log(v))
            return boost * d * v / shape;
    }
}

/* The gap in front of arrival i, in units of the mean gap. */
static double draw_gap(const bt_load_options *o, uint32_t i)
{
    uint64_t state = bt_load_stream(o->seed, BT_LOAD_FOR_GAP, i);
    if (i % o->burst_size != 0)
        return 0;
    double gap = o->burst_size;
    if (isinf(o->burstiness))
        return gap;
    if (o->burstiness == 1)
        return gap * -log(bt_load_next_uniform(&state));
    return gap * next_gamma(o->burstiness, &state);
}

static double rate_at(const bt_load_options *o, double rate, uint32_t i, uint32_t n)
{
    double progress = n > 1 ? (double)i / (n - 1) : 0;
    if (o->ramp == BT_LOAD_LINEAR)
        return o->ramp_start + (o->ramp_end - o->ramp_start) * progress;
    if (o->ramp == BT_LOAD_EXPONENTIAL)
        return o->ramp_start * pow(o->ramp_end / o->ramp_start, progress);
    return rate;
}

void bt_load_arrivals(const bt_load_options *o, double rate, uint32_t n, uint64_t *due_ns)
{
    double gaps = 0, at_s = 0;
    for (uint32_t i = 0; i < n; i++)
        gaps += draw_gap(o, i);
    double scale = o->ramp == BT_LOAD_NO_RAMP && gaps > 0 ? n / gaps : 1;
    for (uint32_t i = 0; i < n; i++) {
        at_s += scale * draw_gap(o, i) / rate_at(o, rate, i, n);
        due_ns[i] = (uint64_t)(at_s * 1e9);
    }
}
