/* One call that writes to many sockets. `relay/streams/group_write.py` says when it may be used. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <sys/socket.h>

PyDoc_STRVAR(doc, "send_to_groups(data, descriptors, /)\n--\n\n"
                  "Send each of a list of bytes to all sockets of the list at the same place of the other list, without\n"
                  "waiting. Return None where all took all, else a list of those that did not: the indices of the bytes and\n"
                  "of the socket in its list, and how many bytes it took, 0 after an error.");

/* Neither the lock of the interpreter nor the loop's thread is let go of: nothing can close one of the sockets. */
static int send_one(PyObject **rest, PyObject *bytes, PyObject *sockets, Py_ssize_t at)
{
    char *data;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(bytes, &data, &size) < 0)
        return -1;
    if (!PyList_Check(sockets)) {
        PyErr_SetString(PyExc_TypeError, "send_to_groups takes the descriptors in lists");
        return -1;
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(sockets); i++) {
        long descriptor = PyLong_AsLong(PyList_GET_ITEM(sockets, i));
        if (descriptor == -1 && PyErr_Occurred())
            return -1;
        Py_ssize_t sent = send((int)descriptor, data, (size_t)size, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent == size)
            continue;
        PyObject *one = Py_BuildValue("nnn", at, i, sent < 0 ? (Py_ssize_t)0 : sent);
        if (one == NULL || (*rest == NULL && (*rest = PyList_New(0)) == NULL) || PyList_Append(*rest, one) < 0) {
            Py_XDECREF(one);
            return -1;
        }
        Py_DECREF(one);
    }
    return 0;
}

static PyObject *send_to_groups(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    if (count != 2 || !PyList_Check(args[0]) || !PyList_Check(args[1]) || PyList_Size(args[0]) != PyList_Size(args[1]))
        return PyErr_Format(PyExc_TypeError, "send_to_groups takes two lists of the same length");
    PyObject *rest = NULL;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(args[0]); i++)
        if (send_one(&rest, PyList_GET_ITEM(args[0], i), PyList_GET_ITEM(args[1], i), i) < 0) {
            Py_XDECREF(rest);
            return NULL;
        }
    return rest == NULL ? Py_NewRef(Py_None) : rest;
}

static PyMethodDef methods[] = {{"send_to_groups", (PyCFunction)(void (*)(void))send_to_groups, METH_FASTCALL, doc}, {NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_native_write", NULL, -1, methods};

PyMODINIT_FUNC PyInit__native_write(void) { return PyModule_Create(&module); }
