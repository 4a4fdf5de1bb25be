/* The inner loops of the merge: integers and doubles, in the order that `twin.py` has, to the same bits.
 *
 * `kernel.py` is the contract of every function here. What is large goes through in pieces that stay in the first
 * cache, so that sums, which are the largest of all, are read and written once for all the updates that came together.
 * Loops are plain enough for compilers to vectorize; words of 32 bytes are spelled out where they are not. Integers
 * wrap around: what is added up fits 64 bits in the end, and no step on the way has to.
 */

#define Py_LIMITED_API 0x030b0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>
#include <string.h>

#if !defined(__GNUC__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "needs the vector extensions of GCC or Clang, and little-endian words; without this module, numpy does its work"
#endif

/* Built for any x86-64, with a second version of what AVX2 makes faster, chosen when it is loaded. */
#if defined(__x86_64__) && defined(__GLIBC__) && !defined(__clang__)
#define FAST __attribute__((target_clones("avx2", "default")))
#else
#define FAST
#endif

typedef uint64_t word __attribute__((vector_size(32)));

enum {
    GROUP = 16,       /* vectors of bits in one call */
    PIECE = 2048,     /* values whose sums stay in the cache while the vectors of a group pass */
    WORDS = 32,       /* of each vector whose bits are counted at once */
    MOST_LEVELS = 64, /* planes of a counter */
    LARGEST_ROW = 4096
};

/* ---- arguments ------------------------------------------------------------------------------------------------ */

typedef struct {
    Py_buffer of[GROUP];
    Py_ssize_t count;
} Buffers;

static void release(Buffers *buffers)
{
    while (buffers->count > 0)
        PyBuffer_Release(&buffers->of[--buffers->count]);
}

/* At most GROUP buffers, each of at least `size` bytes. */
static int acquire(PyObject *sequence, Py_ssize_t size, Buffers *buffers)
{
    buffers->count = 0;
    Py_ssize_t count = PySequence_Size(sequence);
    if (count < 0)
        return -1;
    if (count > GROUP) {
        PyErr_Format(PyExc_ValueError, "%zd vectors: expected at most %d", count, GROUP);
        return -1;
    }
    for (Py_ssize_t k = 0; k < count; k++) {
        PyObject *item = PySequence_GetItem(sequence, k);
        int failed = item == NULL || PyObject_GetBuffer(item, &buffers->of[k], PyBUF_SIMPLE) < 0;
        Py_XDECREF(item);
        if (failed) {
            release(buffers);
            return -1;
        }
        buffers->count++;
        if (buffers->of[k].len < size) {
            PyErr_Format(PyExc_ValueError, "vector of %zd bytes: expected %zd", buffers->of[k].len, size);
            release(buffers);
            return -1;
        }
    }
    return 0;
}

static PyObject *refuse(const char *what)
{
    PyErr_SetString(PyExc_ValueError, what);
    return NULL;
}

/* ---- floats --------------------------------------------------------------------------------------------------- */

#define UNIT 4294967296.0             /* 2^32, `fixed_point.DELTA_BITS` */
#define MAGIC 6755399441055744.0      /* 1.5 * 2^52: the low bits of x + MAGIC are x, rounded to nearest even */
#define MAGIC_BITS 0x4338000000000000

FAST static float largest(const float *x, Py_ssize_t n)
{
    uint32_t most = 0; /* without their sign, floats are in the order of their bits */
    for (Py_ssize_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        bits &= 0x7fffffff;
        most = bits > most ? bits : most;
    }
    float result;
    memcpy(&result, &most, sizeof result);
    return result;
}

/* Every product is below 2^51, so that doubles hold it exactly. */
FAST static void add_small(uint64_t *restrict sum, const float *restrict x, Py_ssize_t n, double weight)
{
    for (Py_ssize_t i = 0; i < n; i++) {
        double whole = (x[i] * UNIT + MAGIC) - MAGIC, product = whole * weight + MAGIC;
        uint64_t bits;
        memcpy(&bits, &product, sizeof bits);
        sum[i] += bits - MAGIC_BITS;
    }
}

FAST static void add_large(uint64_t *restrict sum, const float *restrict x, Py_ssize_t n, int64_t weight)
{
    for (Py_ssize_t i = 0; i < n; i++)
        sum[i] += (uint64_t)(int64_t)__builtin_rint(x[i] * UNIT) * (uint64_t)weight;
}

static PyObject *add_floats(PyObject *module, PyObject *args)
{
    (void)module;
    Py_buffer sum, weights;
    PyObject *sequence;
    Buffers vectors;
    if (!PyArg_ParseTuple(args, "w*Oy*", &sum, &sequence, &weights))
        return NULL;
    PyObject *result = NULL;
    Py_ssize_t n = sum.len / 8;
    if (acquire(sequence, 4 * n, &vectors) == 0) {
        if (weights.len != 8 * vectors.count) {
            refuse("expected a weight for every vector");
        } else {
            int unfit = 0;
            Py_BEGIN_ALLOW_THREADS
            for (Py_ssize_t start = 0; start < n && !unfit; start += PIECE) {
                Py_ssize_t size = n - start < PIECE ? n - start : PIECE;
                float x[PIECE];
                for (Py_ssize_t k = 0; k < vectors.count; k++) {
                    int64_t weight;
                    memcpy(&weight, (const char *)weights.buf + 8 * k, sizeof weight);
                    memcpy(x, (const char *)vectors.of[k].buf + 4 * start, 4 * (size_t)size); /* may lie unaligned */
                    double reach = (double)largest(x, size) * UNIT;
                    if (!(reach < 9223372036854775808.0)) {
                        unfit = 1;
                        break;
                    }
                    if ((reach + 1.0) * (weight < 0 ? -(double)weight : (double)weight) < 2251799813685248.0)
                        add_small((uint64_t *)sum.buf + start, x, size, (double)weight);
                    else
                        add_large((uint64_t *)sum.buf + start, x, size, weight);
                }
            }
            Py_END_ALLOW_THREADS
            result = unfit ? refuse("a value does not fit 64 bits") : Py_NewRef(Py_None);
        }
        release(&vectors);
    }
    PyBuffer_Release(&weights);
    PyBuffer_Release(&sum);
    return result;
}

/* ---- codes of one byte ---------------------------------------------------------------------------------------- */

FAST static void spread(float *restrict x, const uint8_t *restrict code, Py_ssize_t n, double low, double step)
{
    for (Py_ssize_t i = 0; i < n; i++)
        x[i] = (float)(code[i] * step + low);
}

/* The largest magnitude that codes stand for in fixed point, and to spare; not a number if an end is none. */
static double reach_of(const double *low, const double *step, Py_ssize_t tensors)
{
    double reach = 0;
    for (Py_ssize_t s = 0; s < tensors; s++) {
        double below = low[s] < 0 ? -low[s] : low[s], above = low[s] + 255 * step[s];
        above = above < 0 ? -above : above;
        double most = (below > above ? below : above) * UNIT * 1.001 + 1.0;
        reach = most < reach || reach != reach ? reach : most; /* what is no number stays none */
    }
    return reach;
}

static PyObject *add_codes(PyObject *module, PyObject *args)
{
    (void)module;
    Py_buffer sum, codes, low, step, sizes;
    long long weight;
    if (!PyArg_ParseTuple(args, "w*y*y*y*y*L", &sum, &codes, &low, &step, &sizes, &weight))
        return NULL;
    PyObject *result = NULL;
    Py_ssize_t n = sum.len / 8, tensors = sizes.len / 8, total = 0;
    const int64_t *size_of = sizes.buf;
    int ragged = codes.len != n || low.len != sizes.len || step.len != sizes.len;
    for (Py_ssize_t s = 0; s < tensors && !ragged; s++) {
        ragged = size_of[s] < 0 || size_of[s] > n - total;
        total += ragged ? 0 : size_of[s];
    }
    if (ragged || total != n) {
        refuse("expected a code for every sum, and sizes that add up");
    } else {
        double reach = reach_of(low.buf, step.buf, tensors);
        if (!(reach < 9223372036854775808.0)) {
            refuse("a value does not fit 64 bits");
        } else {
            int small = reach * (weight < 0 ? -(double)weight : (double)weight) < 2251799813685248.0;
            uint64_t *into = sum.buf;
            const uint8_t *code = codes.buf;
            const double *lows = low.buf, *steps = step.buf;
            Py_BEGIN_ALLOW_THREADS
            for (Py_ssize_t s = 0; s < tensors; s++)
                for (Py_ssize_t left = size_of[s], size; left > 0; left -= size, into += size, code += size) {
                    float x[PIECE];
                    size = left < PIECE ? left : PIECE;
                    spread(x, code, size, lows[s], steps[s]);
                    if (small)
                        add_small(into, x, size, (double)weight);
                    else
                        add_large(into, x, size, weight);
                }
            Py_END_ALLOW_THREADS
            result = Py_NewRef(Py_None);
        }
    }
    PyBuffer_Release(&sizes);
    PyBuffer_Release(&step);
    PyBuffer_Release(&low);
    PyBuffer_Release(&codes);
    PyBuffer_Release(&sum);
    return result;
}

/* ---- moments -------------------------------------------------------------------------------------------------- */

#define MOMENT_UNIT 1048576.0 /* 2^20, `fixed_point.MOMENT_BITS` */

FAST static void add_small_moments(uint64_t *restrict sum, uint64_t *restrict square_sum, const float *restrict mean,
                                   const float *restrict variance, Py_ssize_t n, double weight)
{
    for (Py_ssize_t i = 0; i < n; i++) {
        double whole = (mean[i] * MOMENT_UNIT + MAGIC) - MAGIC, rounded = whole / MOMENT_UNIT;
        double square = ((variance[i] + rounded * rounded) * MOMENT_UNIT + MAGIC) - MAGIC;
        double product = whole * weight + MAGIC, square_product = square * weight + MAGIC;
        uint64_t bits, square_bits;
        memcpy(&bits, &product, sizeof bits);
        memcpy(&square_bits, &square_product, sizeof square_bits);
        sum[i] += bits - MAGIC_BITS;
        square_sum[i] += square_bits - MAGIC_BITS;
    }
}

FAST static void add_large_moments(uint64_t *restrict sum, uint64_t *restrict square_sum, const float *restrict mean,
                                   const float *restrict variance, Py_ssize_t n, int64_t weight)
{
    for (Py_ssize_t i = 0; i < n; i++) {
        double whole = __builtin_rint(mean[i] * MOMENT_UNIT), rounded = whole / MOMENT_UNIT;
        double square = __builtin_rint((variance[i] + rounded * rounded) * MOMENT_UNIT);
        sum[i] += (uint64_t)(int64_t)whole * (uint64_t)weight;
        square_sum[i] += (uint64_t)(int64_t)square * (uint64_t)weight;
    }
}

static PyObject *add_moments(PyObject *module, PyObject *args)
{
    (void)module;
    Py_buffer sum, square_sum, mean, variance;
    long long weight;
    if (!PyArg_ParseTuple(args, "w*w*y*y*L", &sum, &square_sum, &mean, &variance, &weight))
        return NULL;
    PyObject *result = NULL;
    Py_ssize_t n = sum.len / 8;
    if (square_sum.len != sum.len || 2 * mean.len != sum.len || 2 * variance.len != sum.len) {
        refuse("expected a mean, a variance and two sums for every channel");
    } else {
        double most = (double)largest(mean.buf, n), spread = (double)largest(variance.buf, n);
        double reach = (most > most * most + spread ? most : most * most + spread) * MOMENT_UNIT * 1.001 + 1.0;
        if (!(reach < 9223372036854775808.0)) {
            refuse("a value does not fit 64 bits");
        } else {
            Py_BEGIN_ALLOW_THREADS
            if (reach * (weight < 0 ? -(double)weight : (double)weight) < 2251799813685248.0)
                add_small_moments(sum.buf, square_sum.buf, mean.buf, variance.buf, n, (double)weight);
            else
                add_large_moments(sum.buf, square_sum.buf, mean.buf, variance.buf, n, weight);
            Py_END_ALLOW_THREADS
            result = Py_NewRef(Py_None);
        }
    }
    PyBuffer_Release(&variance);
    PyBuffer_Release(&mean);
    PyBuffer_Release(&square_sum);
    PyBuffer_Release(&sum);
    return result;
}

/* ---- signs ---------------------------------------------------------------------------------------------------- */

/* The sums that eight bits can stand for: plus a coefficient where its bit is set, minus it where it is not. */
static void tabulate(uint64_t *table, const uint64_t *coefficients, uint64_t offset)
{
    table[0] = offset;
    for (int k = 0; k < 8; k++)
        table[0] -= coefficients[k];
    for (int k = 0; k < 8; k++)
        for (int index = 0; index < 1 << k; index++)
            table[index + (1 << k)] = table[index] + 2 * coefficients[k];
}

/* Eight rows of bytes, bit by bit, to eight rows of which byte m of row j has what the rows had at bit j of byte m. */
FAST static void transpose(uint64_t rows[8][PIECE / 64], size_t words)
{
    static const uint64_t masks[3] = {0x0f0f0f0f0f0f0f0f, 0x3333333333333333, 0x5555555555555555};
    for (int stage = 0, span = 4; stage < 3; stage++, span /= 2)
        for (int low = 0; low < 8; low++) {
            if (low & span)
                continue;
            uint64_t *restrict a = rows[low], *restrict b = rows[low + span];
            for (size_t i = 0; i < words; i++) {
                uint64_t swapped = ((a[i] >> span) ^ b[i]) & masks[stage];
                b[i] ^= swapped;
                a[i] ^= swapped << span;
            }
        }
}

typedef uint64_t Rows[2][8][PIECE / 64];

/* Which entries of two tables at most PIECE values have, from byte `at` of the vectors on: byte m of row j is the index
 * of value 8m + j. Eight vectors make up the first one, the other eight the second. */
static void look(Rows rows, const Buffers *vectors, Py_ssize_t at, Py_ssize_t n)
{
    size_t bytes = (size_t)(n + 7) / 8;
    memset(rows, 0, sizeof(Rows));
    for (Py_ssize_t k = 0; k < vectors->count; k++)
        memcpy(rows[k / 8][k % 8], (const char *)vectors->of[k].buf + at, bytes);
    transpose(rows[0], (bytes + 7) / 8);
    if (vectors->count > 8)
        transpose(rows[1], (bytes + 7) / 8);
}

static void add_piece(uint64_t *restrict sum, Py_ssize_t n, const Buffers *vectors, Py_ssize_t at,
                      uint64_t tables[2][256])
{
    Rows rows;
    look(rows, vectors, at, n);
    const uint8_t *first = (const uint8_t *)rows[0], *second = (const uint8_t *)rows[1];
    Py_ssize_t whole = n / 8;
    for (Py_ssize_t m = 0; m < whole; m++)
        for (int j = 0; j < 8; j++)
            sum[8 * m + j] += tables[0][first[j * (PIECE / 8) + m]] + tables[1][second[j * (PIECE / 8) + m]];
    for (int j = 0; j < n % 8; j++)
        sum[8 * whole + j] += tables[0][first[j * (PIECE / 8) + whole]] + tables[1][second[j * (PIECE / 8) + whole]];
}

static PyObject *add_signs(PyObject *module, PyObject *args)
{
    (void)module;
    Py_buffer sum, coefficients, offsets, sizes;
    PyObject *sequence;
    Buffers vectors;
    if (!PyArg_ParseTuple(args, "w*Oy*y*y*", &sum, &sequence, &coefficients, &offsets, &sizes))
        return NULL;
    PyObject *result = NULL;
    Py_ssize_t n = sum.len / 8, blocks = sizes.len / 8, total = 0;
    const int64_t *size_of = sizes.buf;
    int ragged = 0;
    for (Py_ssize_t block = 0; block < blocks; block++) {
        if (size_of[block] < 0 || size_of[block] > n - total || (block < blocks - 1 && size_of[block] % 8)) {
            ragged = 1;
            break;
        }
        total += size_of[block];
    }
    if (ragged || total != n) {
        refuse("expected sizes of blocks that add up, all but the last multiples of 8");
    } else if (acquire(sequence, (n + 7) / 8, &vectors) == 0) {
        if (coefficients.len != 8 * blocks * vectors.count || offsets.len != sizes.len) {
            refuse("expected a coefficient for every block and vector, and an offset for every block");
        } else {
            Py_BEGIN_ALLOW_THREADS
            const uint64_t *row = coefficients.buf;
            Py_ssize_t start = 0;
            for (Py_ssize_t block = 0; block < blocks; block++, row += vectors.count) {
                uint64_t padded[GROUP] = {0}, tables[2][256] = {{0}};
                memcpy(padded, row, 8 * (size_t)vectors.count);
                tabulate(tables[0], padded, ((const uint64_t *)offsets.buf)[block]);
                if (vectors.count > 8)
                    tabulate(tables[1], padded + 8, 0);
                for (Py_ssize_t done = 0; done < size_of[block]; done += PIECE) {
                    Py_ssize_t left = size_of[block] - done;
                    Py_ssize_t at = start + done;
                    add_piece((uint64_t *)sum.buf + at, left < PIECE ? left : PIECE, &vectors, at / 8, tables);
                }
                start += size_of[block];
            }
            Py_END_ALLOW_THREADS
            result = Py_NewRef(Py_None);
        }
        release(&vectors);
    }
    PyBuffer_Release(&sizes);
    PyBuffer_Release(&offsets);
    PyBuffer_Release(&coefficients);
    PyBuffer_Release(&sum);
    return result;
}

/* ---- counters ------------------------------------------------------------------------------------------------- */

/* Three bits of one weight as one of that and one of the next; `carry` may be none of the others. */
#define FULL_ADDER(carry, total, b, c)                                                                                 \
    do {                                                                                                               \
        word only_ = (total) ^ (b);                                                                                    \
        (carry) = ((total) & (b)) | (only_ & (c));                                                                     \
        (total) = only_ ^ (c);                                                                                         \
    } while (0)

/* A few words of the planes from `at` on. R. Harley's tree of adders makes sixteen vectors and the lowest four planes
 * into those planes and a carry, which then goes through the planes above. */
FAST static void count_words(char *planes, Py_ssize_t plane_bytes, int levels, word (*copies)[WORDS],
                             const Buffers *vectors, Py_ssize_t at, int words)
{
    for (int i = 0; i < words; i++, at += sizeof(word)) {
        for (Py_ssize_t k = 0; k < vectors->count && i % 2 == 0; k++)
            __builtin_prefetch((const char *)vectors->of[k].buf + at + 4 * (Py_ssize_t)sizeof copies[0]);
        word plane[4], two[8], four[4], eight[2], carry;
        for (int level = 0; level < 4; level++)
            memcpy(&plane[level], planes + level * plane_bytes + at, sizeof(word));
        for (int k = 0; k < 8; k++)
            FULL_ADDER(two[k], plane[0], copies[2 * k][i], copies[2 * k + 1][i]);
        for (int k = 0; k < 4; k++)
            FULL_ADDER(four[k], plane[1], two[2 * k], two[2 * k + 1]);
        for (int k = 0; k < 2; k++)
            FULL_ADDER(eight[k], plane[2], four[2 * k], four[2 * k + 1]);
        FULL_ADDER(carry, plane[3], eight[0], eight[1]);
        for (int level = 0; level < 4; level++)
            memcpy(planes + level * plane_bytes + at, &plane[level], sizeof(word));
        for (int level = 4; level < levels; level++) {
            word above, next;
            memcpy(&above, planes + level * plane_bytes + at, sizeof(word));
            next = above & carry;
            above ^= carry;
            memcpy(planes + level * plane_bytes + at, &above, sizeof(word));
            carry = next;
        }
    }
}

/* Up to the last whole word; returns where it ends. Vectors mostly begin at the same place of a page, and sixteen of
 * those do not fit the cache together: a few words of each are copied out first. */
static Py_ssize_t count_pieces(char *planes, Py_ssize_t plane_bytes, int levels, const Buffers *vectors)
{
    word copies[GROUP][WORDS]; /* a vector that is not there is zero */
    memset(copies, 0, sizeof copies);
    Py_ssize_t end = plane_bytes - plane_bytes % (Py_ssize_t)sizeof(word);
    for (Py_ssize_t at = 0, bytes; at < end; at += bytes) {
        bytes = end - at < (Py_ssize_t)sizeof copies[0] ? end - at : (Py_ssize_t)sizeof copies[0];
        for (Py_ssize_t k = 0; k < vectors->count; k++)
            memcpy(copies[k], (const char *)vectors->of[k].buf + at, (size_t)bytes);
        count_words(planes, plane_bytes, levels, copies, vectors, at, (int)(bytes / (Py_ssize_t)sizeof(word)));
    }
    return end;
}

/* Byte by byte: what does not fill a word, and counters too small for the tree. */
static void count_bytes(char *planes, Py_ssize_t plane_bytes, int levels, const Buffers *vectors, Py_ssize_t from)
{
    for (Py_ssize_t k = 0; k < vectors->count; k++)
        for (Py_ssize_t at = from; at < plane_bytes; at++) {
            unsigned char carry = ((const unsigned char *)vectors->of[k].buf)[at];
            for (int level = 0; level < levels && carry; level++) {
                unsigned char *plane = (unsigned char *)planes + level * plane_bytes + at, next = *plane & carry;
                *plane ^= carry;
                carry = next;
            }
        }
}

static PyObject *count(PyObject *module, PyObject *args)
{
    (void)module;
    Py_buffer planes;
    PyObject *sequence;
    int levels;
    Buffers vectors;
    if (!PyArg_ParseTuple(args, "w*iO", &planes, &levels, &sequence))
        return NULL;
    PyObject *result = NULL;
    if (levels < 1 || levels > MOST_LEVELS || planes.len % levels) {
        refuse("expected 1 to 64 planes of one size");
    } else if (acquire(sequence, planes.len / levels, &vectors) == 0) {
        Py_BEGIN_ALLOW_THREADS
        Py_ssize_t bytes = planes.len / levels;
        Py_ssize_t done = levels < 4 ? 0 : count_pieces(planes.buf, bytes, levels, &vectors);
        count_bytes(planes.buf, bytes, levels, &vectors, done);
        Py_END_ALLOW_THREADS
        result = Py_NewRef(Py_None);
        release(&vectors);
    }
    PyBuffer_Release(&planes);
    return result;
}

/* ---- the way back --------------------------------------------------------------------------------------------- */

/* x·H without its factor: butterflies over 1, 2, 4 … places, two strides in one pass. */
FAST static void hadamard(double *x, Py_ssize_t size)
{
    Py_ssize_t stride = 1;
    for (; 4 * stride <= size; stride *= 4)
        for (Py_ssize_t start = 0; start < size; start += 4 * stride) {
            double *restrict a = x + start, *restrict b = a + stride, *restrict c = b + stride, *restrict d = c + stride;
            for (Py_ssize_t i = 0; i < stride; i++) {
                double ab = a[i] + b[i], a_b = a[i] - b[i], cd = c[i] + d[i], c_d = c[i] - d[i];
                a[i] = ab + cd;
                b[i] = a_b + c_d;
                c[i] = ab - cd;
                d[i] = a_b - c_d;
            }
        }
    if (2 * stride <= size)
        for (Py_ssize_t i = 0; i < stride; i++) {
            double a = x[i], b = x[i + stride];
            x[i] = a + b;
            x[i + stride] = a - b;
        }
}

FAST static void flip(double *x, const unsigned char *bits, Py_ssize_t size, double factor)
{
    for (Py_ssize_t i = 0; i < size; i += 64) {
        uint64_t word_;
        memcpy(&word_, bits + i / 8, sizeof word_);
        for (int j = 0; j < 64; j++) {
            uint64_t value, minus = (word_ >> j) << 63;
            double scaled = x[i + j] * factor;
            memcpy(&value, &scaled, sizeof value);
            value ^= minus;
            memcpy(&x[i + j], &value, sizeof value);
        }
    }
}

static PyObject *unrotate(PyObject *module, PyObject *args)
{
    (void)module;
    Py_buffer values, signs;
    Py_ssize_t size;
    double factor;
    if (!PyArg_ParseTuple(args, "w*ny*d", &values, &size, &signs, &factor))
        return NULL;
    PyObject *result = NULL;
    Py_ssize_t n = values.len / 8;
    if (size < 64 || size > LARGEST_ROW || size & (size - 1) || n % size || 8 * signs.len != n) {
        refuse("expected rows of 64 to 4096 values, a power of two, and a sign for every value");
    } else {
        Py_BEGIN_ALLOW_THREADS
        for (Py_ssize_t start = 0; start < n; start += size) {
            hadamard((double *)values.buf + start, size);
            flip((double *)values.buf + start, (const unsigned char *)signs.buf + start / 8, size, factor);
        }
        Py_END_ALLOW_THREADS
        result = Py_NewRef(Py_None);
    }
    PyBuffer_Release(&signs);
    PyBuffer_Release(&values);
    return result;
}

static void look_up_piece(float *restrict out, const float *restrict base, Py_ssize_t n, const Buffers *vectors,
                          Py_ssize_t at, const double *restrict table)
{
    Rows rows;
    look(rows, vectors, at, n);
    const uint8_t *index = (const uint8_t *)rows[0];
    Py_ssize_t whole = n / 8;
    for (Py_ssize_t m = 0; m < whole; m++)
        for (int j = 0; j < 8; j++)
            out[8 * m + j] = (float)((double)base[8 * m + j] + table[index[j * (PIECE / 8) + m]]);
    for (int j = 0; j < n % 8; j++)
        out[8 * whole + j] = (float)((double)base[8 * whole + j] + table[index[j * (PIECE / 8) + whole]]);
}

static PyObject *look_up(PyObject *module, PyObject *args)
{
    (void)module;
    Py_buffer out, base, table;
    PyObject *sequence;
    Buffers vectors;
    if (!PyArg_ParseTuple(args, "w*y*Oy*", &out, &base, &sequence, &table))
        return NULL;
    PyObject *result = NULL;
    Py_ssize_t n = out.len / 4;
    if (base.len != out.len || table.len != 8 * 256) {
        refuse("expected a base value for every value, and a table of 256");
    } else if (acquire(sequence, (n + 7) / 8, &vectors) == 0) {
        if (vectors.count > 8) {
            refuse("expected at most 8 vectors");
        } else {
            Py_BEGIN_ALLOW_THREADS
            for (Py_ssize_t at = 0; at < n; at += PIECE)
                look_up_piece((float *)out.buf + at, (const float *)base.buf + at, n - at < PIECE ? n - at : PIECE,
                              &vectors, at / 8, table.buf);
            Py_END_ALLOW_THREADS
            result = Py_NewRef(Py_None);
        }
        release(&vectors);
    }
    PyBuffer_Release(&table);
    PyBuffer_Release(&base);
    PyBuffer_Release(&out);
    return result;
}

FAST static void add_quotients(float *restrict out, const float *restrict base, const double *restrict total,
                               Py_ssize_t n, double divisor)
{
    for (Py_ssize_t i = 0; i < n; i++)
        out[i] = (float)((double)base[i] + total[i] / divisor);
}

static PyObject *move(PyObject *module, PyObject *args)
{
    (void)module;
    Py_buffer out, base, total;
    double divisor;
    if (!PyArg_ParseTuple(args, "w*y*y*d", &out, &base, &total, &divisor))
        return NULL;
    PyObject *result = NULL;
    if (base.len != out.len || total.len != 2 * out.len) {
        refuse("expected a base value and a sum for every value");
    } else {
        Py_BEGIN_ALLOW_THREADS
        add_quotients(out.buf, base.buf, total.buf, out.len / 4, divisor);
        Py_END_ALLOW_THREADS
        result = Py_NewRef(Py_None);
    }
    PyBuffer_Release(&total);
    PyBuffer_Release(&base);
    PyBuffer_Release(&out);
    return result;
}

/* ---- the module ----------------------------------------------------------------------------------------------- */

static PyMethodDef methods[] = {
    {"add_floats", add_floats, METH_VARARGS, NULL},
    {"add_codes", add_codes, METH_VARARGS, NULL},
    {"add_moments", add_moments, METH_VARARGS, NULL},
    {"add_signs", add_signs, METH_VARARGS, NULL},
    {"count", count, METH_VARARGS, NULL},
    {"unrotate", unrotate, METH_VARARGS, NULL},
    {"look_up", look_up, METH_VARARGS, NULL},
    {"move", move, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_kernel",
    .m_doc = "The inner loops of the merge; `kernel.py` is their contract.",
    .m_size = 0,
    .m_methods = methods,
};

PyMODINIT_FUNC PyInit__kernel(void);
PyMODINIT_FUNC PyInit__kernel(void)
{
    return PyModuleDef_Init(&definition);
}
