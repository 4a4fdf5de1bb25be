/* The Python module `protocol.operators._binary`; ONNX Runtime loads the same file through `RegisterCustomOps`. */

#define Py_LIMITED_API 0x030b0000
#include <Python.h>

#include "binary.h"
#include "operators.h"

static PyObject *paths(PyObject *module, PyObject *nothing)
{
    (void)module, (void)nothing;
    PyObject *names = PyList_New(0);
    for (const Path *const *path = binary_paths; names != NULL && *path != NULL; path++) {
        if (!(*path)->runs_here())
            continue;
        PyObject *name = PyUnicode_FromString((*path)->name);
        if (name == NULL || PyList_Append(names, name) != 0)
            Py_CLEAR(names);
        Py_XDECREF(name);
    }
    return names;
}

static PyObject *choose(PyObject *module, PyObject *argument)
{
    (void)module;
    if (!PyUnicode_Check(argument)) {
        PyErr_SetString(PyExc_TypeError, "expected the name of a path");
        return NULL;
    }
    for (const Path *const *path = binary_paths; *path != NULL; path++) {
        PyObject *name = PyUnicode_FromString((*path)->name);
        int same = name == NULL ? -1 : PyUnicode_Compare(name, argument) == 0;
        Py_XDECREF(name);
        if (same < 0)
            return NULL;
        if (same && (*path)->runs_here()) {
            operators_choose(*path);
            Py_RETURN_NONE;
        }
    }
    PyErr_Format(PyExc_ValueError, "path %R: expected one of paths()", argument);
    return NULL;
}

static PyObject *current(PyObject *module, PyObject *nothing)
{
    (void)module, (void)nothing;
    return PyUnicode_FromString(operators_chosen()->name);
}

static PyObject *runs_with(PyObject *module, PyObject *argument)
{
    (void)module;
    PyObject *text = PyUnicode_AsUTF8String(argument);
    const char *version = text == NULL ? NULL : PyBytes_AsString(text);
    PyObject *answer = version == NULL ? NULL : PyBool_FromLong(operators_run_with(version));
    Py_XDECREF(text);
    return answer;
}

static PyMethodDef methods[] = {
    {"paths", paths, METH_NOARGS, "Names of the ways to compute that this processor has, the fastest first."},
    {"choose", choose, METH_O, "Take this one for the sessions that are made from now on."},
    {"chosen", current, METH_NOARGS, "The one that they take."},
    {"runs_with", runs_with, METH_O, "Whether the operators were tried with ONNX Runtime of this version."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_binary",
    .m_doc = "The compiled operators: how they compute, and what they run with.",
    .m_size = 0,
    .m_methods = methods,
};

PyMODINIT_FUNC PyInit__binary(void);
PyMODINIT_FUNC PyInit__binary(void)
{
    return PyModuleDef_Init(&definition);
}
