/* `BinaryConv` and `BinaryResidual` as custom operators of ONNX Runtime.
 *
 * Its wheels ship no headers. What is used of its C API is named here by its place in the table of functions, which
 * only ever grows at its end: onnxruntime_c_api.h says so, and asserts the last place of every version. `Operator` is
 * the struct of API version 16; ONNX Runtime reads no field beyond what the version in it promises.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "binary.h"
#include "operators.h"

enum { API_VERSION = 17, OPERATOR_VERSION = 16, OLDEST_MINOR = 17, NEWEST_MINOR = 28 };
enum { FLOAT = 1, UINT8 = 2, INT32 = 6, INT64 = 7 }; /* element types, as ONNX numbers them */
enum { INVALID_ARGUMENT = 2, REQUIRED = 0, DEFAULT_MEMORY = 0 };

typedef struct Status Status;
typedef struct Value Value;
typedef struct Shape Shape;
typedef const void *const Api;

enum {
    CREATE_STATUS = 0,
    CREATE_CUSTOM_OP_DOMAIN = 26,
    CUSTOM_OP_DOMAIN_ADD = 27,
    ADD_CUSTOM_OP_DOMAIN = 28,
    GET_TENSOR_MUTABLE_DATA = 51,
    GET_DIMENSIONS_COUNT = 61,
    GET_DIMENSIONS = 62,
    GET_TENSOR_SHAPE_ELEMENT_COUNT = 64,
    GET_TENSOR_TYPE_AND_SHAPE = 65,
    KERNEL_INFO_GET_ATTRIBUTE_INT64 = 86,
    KERNEL_CONTEXT_GET_INPUT = 90,
    KERNEL_CONTEXT_GET_OUTPUT = 91,
    RELEASE_TENSOR_TYPE_AND_SHAPE_INFO = 99,
    KERNEL_INFO_GET_ATTRIBUTE_ARRAY_INT64 = 163,
    KERNEL_INFO_GET_CONSTANT_INPUT_TENSOR = 249,
    KERNEL_CONTEXT_PARALLEL_FOR = 274,
};

typedef Status *(*CreateStatus)(int code, const char *message);
typedef Status *(*CreateDomain)(const char *name, void **domain);
typedef Status *(*AddToDomain)(void *domain, const void *operator);
typedef Status *(*AddDomain)(void *options, void *domain);
typedef Status *(*GetData)(const Value *value, void **data);
typedef Status *(*GetCount)(const Shape *shape, size_t *count);
typedef Status *(*GetDimensions)(const Shape *shape, int64_t *dimensions, size_t count);
typedef Status *(*GetShape)(const Value *value, Shape **shape);
typedef Status *(*GetInteger)(const void *info, const char *name, int64_t *value);
typedef Status *(*GetIntegers)(const void *info, const char *name, int64_t *values, size_t *count);
typedef Status *(*GetInput)(const void *context, size_t number, const Value **value);
typedef Status *(*GetOutput)(void *context, size_t number, const int64_t *dimensions, size_t count, Value **value);
typedef Status *(*GetConstant)(const void *info, size_t number, int *is_constant, const Value **value);
typedef Status *(*Parallel)(const void *context, void (*task)(void *, size_t), size_t count, size_t batches, void *of);
typedef void (*ReleaseShape)(Shape *shape);

#define CALL(api, type, slot) ((type)(api)[slot])

typedef struct Operator {
    uint32_t version;
    void *(*create_old)(const struct Operator *, Api *, const void *);
    const char *(*name)(const struct Operator *);
    const char *(*provider)(const struct Operator *);
    int (*input_type)(const struct Operator *, size_t);
    size_t (*input_count)(const struct Operator *);
    int (*output_type)(const struct Operator *, size_t);
    size_t (*output_count)(const struct Operator *);
    void (*compute_old)(void *, void *);
    void (*destroy)(void *);
    int (*input_characteristic)(const struct Operator *, size_t);
    int (*output_characteristic)(const struct Operator *, size_t);
    int (*input_memory)(const struct Operator *, size_t);
    int (*variadic_input_least)(const struct Operator *);
    int (*variadic_input_homogeneous)(const struct Operator *);
    int (*variadic_output_least)(const struct Operator *);
    int (*variadic_output_homogeneous)(const struct Operator *);
    Status *(*create)(const struct Operator *, Api *, const void *, void **);
    Status *(*compute)(void *, void *);
    /* What later versions added; ONNX Runtime does not read it at this one. */
    void *reserved[8];
} Operator;

/* Inputs, in the order that export/passes/binary_functions.py gives them. */
enum { X, X_SCALE, THRESHOLD, PADS, WEIGHT, WEIGHT_SHAPE, WEIGHT_SCALE, BIAS, Y_SCALE, Y_ZERO, CONV_INPUTS };
enum { SHORTCUT = CONV_INPUTS, SLOPE, SHIFT_IN, SHIFT_OUT, RESIDUAL_INPUTS };

static const int input_types[RESIDUAL_INPUTS] = {
    UINT8, FLOAT, INT32, INT64, UINT8, INT64, FLOAT, INT32, FLOAT, UINT8, UINT8, FLOAT, FLOAT, FLOAT,
};

typedef struct {
    Api *api;
    Layer *layer;
} Kernel;

static const Path *chosen;

void operators_choose(const Path *path)
{
    chosen = path;
}

const Path *operators_chosen(void)
{
    return chosen != NULL ? chosen : binary_fastest();
}

int operators_run_with(const char *version)
{
    int major = 0, minor = 0;
    return sscanf(version, "%d.%d", &major, &minor) == 2 && major == 1 && minor >= OLDEST_MINOR &&
           minor <= NEWEST_MINOR;
}

static Status *refuse(Api *api, const char *what)
{
    char message[160];
    snprintf(message, sizeof message, "bitfleet's binary convolution: %s", what);
    return CALL(api, CreateStatus, CREATE_STATUS)(INVALID_ARGUMENT, message);
}

/* ---- reading a node ------------------------------------------------------------------------------------------- */

typedef struct {
    Api *api;
    const void *info;
    Status *status; /* the first fault; everything after it is skipped */
} Reader;

static int64_t integer(Reader *reader, const char *name)
{
    int64_t value = 0;
    if (reader->status == NULL)
        reader->status =
            CALL(reader->api, GetInteger, KERNEL_INFO_GET_ATTRIBUTE_INT64)(reader->info, name, &value);
    return value;
}

static void integers(Reader *reader, const char *name, int64_t *values, size_t count)
{
    size_t found = count;
    if (reader->status == NULL)
        reader->status =
            CALL(reader->api, GetIntegers, KERNEL_INFO_GET_ATTRIBUTE_ARRAY_INT64)(reader->info, name, values, &found);
    if (reader->status == NULL && found != count)
        reader->status = refuse(reader->api, "an attribute has another length than it should");
}

/* Elements of a constant input, which live as long as the session. */
static const void *constant(Reader *reader, size_t number, size_t count)
{
    Api *api = reader->api;
    const Value *value = NULL;
    Shape *shape = NULL;
    void *data = NULL;
    size_t found = 0;
    int is_constant = 0;
    if (reader->status == NULL)
        reader->status =
            CALL(api, GetConstant, KERNEL_INFO_GET_CONSTANT_INPUT_TENSOR)(reader->info, number, &is_constant, &value);
    if (reader->status == NULL && !is_constant)
        reader->status = refuse(api, "an input that has to be constant is not");
    if (reader->status == NULL)
        reader->status = CALL(api, GetShape, GET_TENSOR_TYPE_AND_SHAPE)(value, &shape);
    if (reader->status == NULL) {
        reader->status = CALL(api, GetCount, GET_TENSOR_SHAPE_ELEMENT_COUNT)(shape, &found);
        CALL(api, ReleaseShape, RELEASE_TENSOR_TYPE_AND_SHAPE_INFO)(shape);
    }
    if (reader->status == NULL && found != count)
        reader->status = refuse(api, "a constant has another number of elements than the weight's shape asks for");
    if (reader->status == NULL)
        reader->status = CALL(api, GetData, GET_TENSOR_MUTABLE_DATA)(value, &data);
    return data;
}

enum { MOST = 1 << 20 /* of channels and outputs: their product with a kernel stays far from wrapping around */ };

static Status *create(const Operator *operator, Api *api, const void *info, void **made)
{
    Reader reader = {api, info, NULL};
    int64_t strides[2] = {0};
    integers(&reader, "strides", strides, 2);
    const int64_t *shape = constant(&reader, WEIGHT_SHAPE, 4), *pads = constant(&reader, PADS, 8);
    Definition d = {.levels = (int)integer(&reader, "levels"), .low = (int)integer(&reader, "low"),
                    .high = (int)integer(&reader, "high")};
    if (reader.status != NULL)
        return reader.status;
    int64_t pad = pads[1];
    const int64_t wanted[8] = {0, pad, pad, 0, 0, pad, pad, 0};
    if (memcmp(pads, wanted, sizeof wanted) != 0 || strides[0] != strides[1] || shape[2] != shape[3] || pad < 0 ||
        strides[0] < 1 || strides[0] > MOST || pad > MOST)
        return refuse(api, "expected one edge, stride and padding for both directions");
    if (shape[0] < 1 || shape[0] > MOST || shape[1] < 1 || shape[1] > MOST || shape[2] < 1 || shape[2] > LARGEST_KERNEL)
        return refuse(api, "weight_shape: expected outputs, channels and a kernel of 1 to 7 twice");
    d.outputs = (size_t)shape[0], d.channels = (size_t)shape[1], d.kernel = (size_t)shape[2];
    d.stride = (size_t)strides[0], d.padding = (size_t)pad;
    const float *step_in = constant(&reader, X_SCALE, 1);
    d.threshold = constant(&reader, THRESHOLD, d.channels);
    d.weight = constant(&reader, WEIGHT, (d.outputs * d.channels * d.kernel * d.kernel + 7) / 8);
    d.weight_step = constant(&reader, WEIGHT_SCALE, d.outputs);
    d.bias = constant(&reader, BIAS, d.outputs);
    const float *step_out = constant(&reader, Y_SCALE, 1);
    const uint8_t *zero = constant(&reader, Y_ZERO, 1);
    if (operator->input_count(operator) == RESIDUAL_INPUTS) {
        d.slope = constant(&reader, SLOPE, d.outputs);
        d.shift_in = constant(&reader, SHIFT_IN, d.outputs);
        d.shift_out = constant(&reader, SHIFT_OUT, d.outputs);
    }
    if (reader.status != NULL)
        return reader.status;
    d.step_in = *step_in, d.step_out = *step_out, d.zero = *zero;
    Kernel *kernel = malloc(sizeof *kernel);
    const char *wrong = kernel == NULL ? "out of memory" : binary_prepare(&d, operators_chosen(), &kernel->layer);
    if (wrong != NULL) {
        free(kernel);
        return refuse(api, wrong);
    }
    kernel->api = api;
    *made = kernel;
    return NULL;
}

static void destroy(void *made)
{
    Kernel *kernel = made;
    binary_release(kernel->layer);
    free(kernel);
}

/* ---- running it ----------------------------------------------------------------------------------------------- */

static Status *input(Api *api, void *context, size_t number, int64_t dimensions[4], void **data)
{
    const Value *value = NULL;
    Shape *shape = NULL;
    size_t rank = 0;
    Status *status = CALL(api, GetInput, KERNEL_CONTEXT_GET_INPUT)(context, number, &value);
    if (status == NULL)
        status = CALL(api, GetShape, GET_TENSOR_TYPE_AND_SHAPE)(value, &shape);
    if (status != NULL)
        return status;
    status = CALL(api, GetCount, GET_DIMENSIONS_COUNT)(shape, &rank);
    if (status == NULL && rank != 4)
        status = refuse(api, "expected activations of shape [N, H, W, C]");
    if (status == NULL)
        status = CALL(api, GetDimensions, GET_DIMENSIONS)(shape, dimensions, rank);
    CALL(api, ReleaseShape, RELEASE_TENSOR_TYPE_AND_SHAPE_INFO)(shape);
    return status != NULL ? status : CALL(api, GetData, GET_TENSOR_MUTABLE_DATA)(value, data);
}

typedef struct {
    Api *api;
    void *context;
    Status *status;
} Threads;

/* On the session's own threads, of which there may be one. */
static void on_threads(void *of, void (*task)(void *, size_t), size_t count, void *state)
{
    Threads *threads = of;
    if (threads->status == NULL)
        threads->status =
            CALL(threads->api, Parallel, KERNEL_CONTEXT_PARALLEL_FOR)(threads->context, task, count, 0, state);
}

static Status *compute(void *made, void *context)
{
    const Kernel *kernel = made;
    const Layer *layer = kernel->layer;
    Api *api = kernel->api;
    int64_t in[4], beside[4];
    void *x = NULL, *shortcut = NULL, *y = NULL;
    Status *status = input(api, context, X, in, &x);
    if (status != NULL)
        return status;
    if (in[3] != (int64_t)layer->channels)
        return refuse(api, "activations have another number of channels than the weights");
    const int64_t out[4] = {in[0], (int64_t)binary_edge(layer, (size_t)in[1]),
                            (int64_t)binary_edge(layer, (size_t)in[2]), (int64_t)layer->outputs};
    if (layer->has_residual) {
        status = input(api, context, SHORTCUT, beside, &shortcut);
        if (status != NULL)
            return status;
        if (memcmp(beside, out, sizeof out) != 0)
            return refuse(api, "the shortcut has another shape than the output");
    }
    Value *result = NULL;
    status = CALL(api, GetOutput, KERNEL_CONTEXT_GET_OUTPUT)(context, 0, out, 4, &result);
    if (status == NULL)
        status = CALL(api, GetData, GET_TENSOR_MUTABLE_DATA)(result, &y);
    if (status != NULL)
        return status;
    Threads threads = {api, context, NULL};
    if (binary_run(layer, x, shortcut, y, (size_t)in[0], (size_t)in[1], (size_t)in[2], on_threads, &threads) != 0)
        return refuse(api, "out of memory");
    return threads.status;
}

/* ---- what ONNX Runtime asks about an operator ----------------------------------------------------------------- */

static const char *conv_name(const Operator *operator)
{
    (void)operator;
    return "BinaryConv";
}

static const char *residual_name(const Operator *operator)
{
    (void)operator;
    return "BinaryResidual";
}

static const char *any_provider(const Operator *operator)
{
    (void)operator;
    return NULL;
}

static int input_type(const Operator *operator, size_t number)
{
    (void)operator;
    return input_types[number];
}

static int output_type(const Operator *operator, size_t number)
{
    (void)operator, (void)number;
    return UINT8;
}

static size_t conv_inputs(const Operator *operator)
{
    (void)operator;
    return CONV_INPUTS;
}

static size_t residual_inputs(const Operator *operator)
{
    (void)operator;
    return RESIDUAL_INPUTS;
}

static size_t one_output(const Operator *operator)
{
    (void)operator;
    return 1;
}

static int required(const Operator *operator, size_t number)
{
    (void)operator, (void)number;
    return REQUIRED;
}

static int default_memory(const Operator *operator, size_t number)
{
    (void)operator, (void)number;
    return DEFAULT_MEMORY;
}

static int not_variadic(const Operator *operator) /* never asked; must not be NULL */
{
    (void)operator;
    return 1;
}

#define OPERATOR(name, inputs)                                                                                       \
    {OPERATOR_VERSION, NULL, name, any_provider, input_type, inputs, output_type, one_output, NULL, destroy,        \
     required, required, default_memory, not_variadic, not_variadic, not_variadic, not_variadic, create, compute,   \
     {NULL}}

static const Operator conv = OPERATOR(conv_name, conv_inputs);
static const Operator residual = OPERATOR(residual_name, residual_inputs);

typedef struct {
    Api *(*api)(uint32_t version);
    const char *(*version)(void);
} Base;

Status *RegisterCustomOps(void *options, const Base *base);

/* Called by register_custom_ops_library. With a version that this was not tried with it adds nothing, and says so. */
Status *RegisterCustomOps(void *options, const Base *base)
{
    static void *domain; /* one for all sessions */
    Api *api = base->api(API_VERSION);
    if (api == NULL)
        return NULL; /* too old to be told so; models fall back to their standard operators */
    if (!operators_run_with(base->version()))
        return refuse(api, "was not tried with this version of ONNX Runtime");
    Status *status = NULL;
    if (domain == NULL) {
        status = CALL(api, CreateDomain, CREATE_CUSTOM_OP_DOMAIN)("bitfleet", &domain);
        if (status == NULL)
            status = CALL(api, AddToDomain, CUSTOM_OP_DOMAIN_ADD)(domain, &conv);
        if (status == NULL)
            status = CALL(api, AddToDomain, CUSTOM_OP_DOMAIN_ADD)(domain, &residual);
    }
    return status != NULL ? status : CALL(api, AddDomain, ADD_CUSTOM_OP_DOMAIN)(options, domain);
}
