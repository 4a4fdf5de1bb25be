/* The inner loops of the quantizers, each once over its values where torch goes over them ten times.
 *
 * `kernel.py` is the contract of every function here, `twin.py` the same in torch: codes and what a gradient passes
 * have the twin's bits, sums are its sums in another order. Rows and pieces are summed in float, sums of those in
 * double. Loops are plain enough for compilers to vectorize.
 */

#define Py_LIMITED_API 0x030b0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <math.h>
#include <stdint.h>

/* Built for any x86-64, with a second version of what AVX2 makes faster, chosen when it is loaded. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define FAST __attribute__((target_clones("avx2", "default")))
#else
#define FAST
#endif

enum {
    LANES = 16,  /* sums side by side, so that additions need not wait for one another */
    PIECE = 4096 /* values that are summed in float */
};

/* Trace of a value above the range, and what a step of rounding is in it: `twin.CLIPPED`, `twin.FINENESS`. */
#define CLIPPED 127.0f
#define FINENESS 253.9f

static PyObject *refuse(const char *what)
{
    PyErr_SetString(PyExc_ValueError, what);
    return NULL;
}

static double total(const float *lanes)
{
    double sum = 0;
    for (int j = 0; j < LANES; j++)
        sum += (double)lanes[j];
    return sum;
}

/* ---- activations ---------------------------------------------------------------------------------------------- */

FAST static void round_values(const float *restrict value, float *restrict level, int8_t *restrict trace, Py_ssize_t n,
                              float step, float low, float high)
{
    for (Py_ssize_t i = 0; i < n; i++) {
        float position = value[i] / step;
        float within = position < low ? low : position;
        within = within > high ? high : within;
        float code = rintf(within);
        float end = position > within ? CLIPPED : position < within ? -CLIPPED : 0.0f;
        float mark = end + (within - code) * FINENESS;
        level[i] = code * step;
        trace[i] = (int8_t)(int32_t)(mark == mark ? mark : CLIPPED); /* what is no number, is no integer either */
    }
}

static PyObject *quantize_values(PyObject *module, PyObject *args)
{
    (void)module;
    Py_buffer value, level, trace;
    float step, low, high;
    if (!PyArg_ParseTuple(args, "y*w*w*fff", &value, &level, &trace, &step, &low, &high))
        return NULL;
    PyObject *result = NULL;
    if (value.len != level.len || value.len != 4 * trace.len) {
        refuse("expected a level of 4 bytes and a trace of one for every value of 4");
    } else {
        Py_BEGIN_ALLOW_THREADS
        round_values(value.buf, level.buf, trace.buf, trace.len, step, low, high);
        Py_END_ALLOW_THREADS
        result = Py_NewRef(Py_None);
    }
    PyBuffer_Release(&trace);
    PyBuffer_Release(&level);
    PyBuffer_Release(&value);
    return result;
}

FAST static void pass_piece(const float *restrict gradient, const int8_t *restrict trace, float *restrict passed,
                            Py_ssize_t n, double *restrict sums)
{
    float rounding[LANES] = {0}, ends[LANES] = {0}, clipped[LANES] = {0};
    Py_ssize_t whole = n - n % LANES;
    for (Py_ssize_t i = 0; i < whole; i += LANES)
        for (int j = 0; j < LANES; j++) {
            float slope = gradient[i + j], mark = trace[i + j];
            float kept = mark > -CLIPPED && mark < CLIPPED ? slope : 0.0f, outside = slope - kept;
            passed[i + j] = kept;
            rounding[j] += kept * mark;
            ends[j] += outside * mark;
            clipped[j] += outside;
        }
    for (Py_ssize_t i = whole; i < n; i++) {
        float slope = gradient[i], mark = trace[i];
        float kept = mark > -CLIPPED && mark < CLIPPED ? slope : 0.0f, outside = slope - kept;
        passed[i] = kept;
        rounding[0] += kept * mark;
        ends[0] += outside * mark;
        clipped[0] += outside;
    }
    sums[0] += total(rounding);
    sums[1] += total(ends);
    sums[2] += total(clipped);
}

static PyObject *pass_values(PyObject *module, PyObject *args)
{
    (void)module;
    Py_buffer gradient, trace, passed;
    if (!PyArg_ParseTuple(args, "y*y*w*", &gradient, &trace, &passed))
        return NULL;
    PyObject *result = NULL;
    if (gradient.len != passed.len || gradient.len != 4 * trace.len) {
        refuse("expected a gradient of 4 bytes, in and out, for every trace");
    } else {
        const float *in = gradient.buf;
        const int8_t *mark = trace.buf;
        float *out = passed.buf;
        double sums[3] = {0, 0, 0};
        Py_BEGIN_ALLOW_THREADS
        for (Py_ssize_t at = 0; at < trace.len; at += PIECE)
            pass_piece(in + at, mark + at, out + at, trace.len - at < PIECE ? trace.len - at : PIECE, sums);
        Py_END_ALLOW_THREADS
        result = Py_BuildValue("ddd", sums[0], sums[1], sums[2]);
    }
    PyBuffer_Release(&passed);
    PyBuffer_Release(&trace);
    PyBuffer_Release(&gradient);
    return result;
}

/* ---- weights -------------------------------------------------------------------------------------------------- */

typedef enum { TREAD, RISE, LEADING, FORMS } Form; /* `kernel.Form` */

typedef struct {
    float limit;  /* of the codes; of LEADING, of those that are cut */
    float share;  /* of LEADING: what is left of a code, 2^(b - 7) */
    float lowest; /* of LEADING: the lowest code, 1 - 2^b */
} Codes;

static inline float clipped_to(float x, float limit)
{
    x = x < -limit ? -limit : x;
    return x > limit ? limit : x;
}

static inline __attribute__((always_inline)) float code_of(float position, Form form, Codes codes)
{
    if (form == TREAD)
        return clipped_to(rintf(position), codes.limit);
    if (form == RISE)
        return clipped_to(floorf(position * 0.5f) * 2.0f + 1.0f, codes.limit);
    float from_lowest = clipped_to(rintf(position), codes.limit) + codes.limit, most = 2.0f * codes.limit - 1.0f;
    from_lowest = from_lowest > most ? most : from_lowest;
    return floorf(from_lowest * codes.share) * 2.0f + codes.lowest;
}

static inline __attribute__((always_inline)) void round_row(const float *restrict weight, float *restrict level,
                                                           Py_ssize_t n, float step, float unit, Form form, Codes codes)
{
    for (Py_ssize_t i = 0; i < n; i++)
        level[i] = code_of(weight[i] / step, form, codes) * unit;
}

FAST static void round_rows(const float *weight, float *level, Py_ssize_t rows, Py_ssize_t n, const float *step,
                            const float *unit, Form form, Codes codes)
{
    for (Py_ssize_t o = 0; o < rows; o++, weight += n, level += n)
        if (form == TREAD)
            round_row(weight, level, n, step[o], unit[o], TREAD, codes);
        else if (form == RISE)
            round_row(weight, level, n, step[o], unit[o], RISE, codes);
        else
            round_row(weight, level, n, step[o], unit[o], LEADING, codes);
}

static PyObject *quantize_rows(PyObject *module, PyObject *args)
{
    (void)module;
    Py_buffer weight, level, step, unit;
    int form;
    Codes codes;
    if (!PyArg_ParseTuple(args, "y*w*y*y*i(fff)", &weight, &level, &step, &unit, &form, &codes.limit, &codes.share,
                          &codes.lowest))
        return NULL;
    PyObject *result = NULL;
    Py_ssize_t rows = step.len / 4;
    if (weight.len != level.len || step.len != unit.len || rows == 0 || weight.len % (4 * rows) != 0) {
        refuse("expected a level for every weight, and a step and a unit for every row");
    } else if (form < 0 || form >= FORMS) {
        refuse("expected a form of codes");
    } else {
        Py_BEGIN_ALLOW_THREADS
        round_rows(weight.buf, level.buf, rows, weight.len / 4 / rows, step.buf, unit.buf, (Form)form, codes);
        Py_END_ALLOW_THREADS
        result = Py_NewRef(Py_None);
    }
    PyBuffer_Release(&unit);
    PyBuffer_Release(&step);
    PyBuffer_Release(&level);
    PyBuffer_Release(&weight);
    return result;
}

static inline __attribute__((always_inline)) void pass_row(const float *restrict weight, const float *restrict gradient,
                                                          float *restrict passed, Py_ssize_t n, float step, float reach,
                                                          Form form, Codes codes, float *along_code, float *along_position)
{
    float by_code[LANES] = {0}, by_position[LANES] = {0};
    Py_ssize_t whole = n - n % LANES;
    for (Py_ssize_t i = 0; i < whole; i += LANES)
        for (int j = 0; j < LANES; j++) {
            float position = weight[i + j] / step, slope = gradient[i + j];
            float kept = position >= -reach && position <= reach ? slope : 0.0f;
            passed[i + j] = kept;
            by_position[j] += kept * position;
            by_code[j] += slope * code_of(position, form, codes);
        }
    for (Py_ssize_t i = whole; i < n; i++) {
        float position = weight[i] / step, slope = gradient[i];
        float kept = position >= -reach && position <= reach ? slope : 0.0f;
        passed[i] = kept;
        by_position[0] += kept * position;
        by_code[0] += slope * code_of(position, form, codes);
    }
    *along_code = (float)total(by_code);
    *along_position = (float)total(by_position);
}

FAST static void pass_all_rows(const float *weight, const float *gradient, float *passed, Py_ssize_t rows, Py_ssize_t n,
                               const float *step, float reach, Form form, Codes codes, float *code, float *position)
{
    for (Py_ssize_t o = 0; o < rows; o++, weight += n, gradient += n, passed += n)
        if (form == TREAD)
            pass_row(weight, gradient, passed, n, step[o], reach, TREAD, codes, code + o, position + o);
        else if (form == RISE)
            pass_row(weight, gradient, passed, n, step[o], reach, RISE, codes, code + o, position + o);
        else
            pass_row(weight, gradient, passed, n, step[o], reach, LEADING, codes, code + o, position + o);
}

static PyObject *pass_rows(PyObject *module, PyObject *args)
{
    (void)module;
    Py_buffer weight, gradient, passed, step, code, position;
    int form;
    float reach;
    Codes codes;
    if (!PyArg_ParseTuple(args, "y*y*w*y*w*w*fi(fff)", &weight, &gradient, &passed, &step, &code, &position, &reach,
                          &form, &codes.limit, &codes.share, &codes.lowest))
        return NULL;
    PyObject *result = NULL;
    Py_ssize_t rows = step.len / 4;
    if (weight.len != gradient.len || weight.len != passed.len || rows == 0 || weight.len % (4 * rows) != 0 ||
        code.len != step.len || position.len != step.len) {
        refuse("expected a gradient, in and out, for every weight, and a step and two sums for every row");
    } else if (form < 0 || form >= FORMS) {
        refuse("expected a form of codes");
    } else {
        Py_BEGIN_ALLOW_THREADS
        pass_all_rows(weight.buf, gradient.buf, passed.buf, rows, weight.len / 4 / rows, step.buf, reach, (Form)form,
                      codes, code.buf, position.buf);
        Py_END_ALLOW_THREADS
        result = Py_NewRef(Py_None);
    }
    PyBuffer_Release(&position);
    PyBuffer_Release(&code);
    PyBuffer_Release(&step);
    PyBuffer_Release(&passed);
    PyBuffer_Release(&gradient);
    PyBuffer_Release(&weight);
    return result;
}

/* ---- the module ----------------------------------------------------------------------------------------------- */

static PyMethodDef methods[] = {
    {"quantize_values", quantize_values, METH_VARARGS, NULL},
    {"pass_values", pass_values, METH_VARARGS, NULL},
    {"quantize_rows", quantize_rows, METH_VARARGS, NULL},
    {"pass_rows", pass_rows, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_kernel",
    .m_doc = "The inner loops of the quantizers; `kernel.py` is their contract.",
    .m_size = 0,
    .m_methods = methods,
};

PyMODINIT_FUNC PyInit__kernel(void);
PyMODINIT_FUNC PyInit__kernel(void)
{
    return PyModuleDef_Init(&definition);
}
