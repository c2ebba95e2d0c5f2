/* One call that writes to many sockets. `relay/streams/group_write.py` says when it may be used. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <sys/socket.h>

PyDoc_STRVAR(doc, "send_all(data, descriptors, /)\n--\n\n"
                  "Send each of a list of bytes to the socket at the same place of the other list, without waiting. Return\n"
                  "None where all took all, else a list of those that did not: the index of each, and how many bytes it\n"
                  "took, 0 after an error.");

static PyObject *send_all(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    if (count != 2 || !PyList_Check(args[0]) || !PyList_Check(args[1]) || PyList_Size(args[0]) != PyList_Size(args[1]))
        return PyErr_Format(PyExc_TypeError, "send_all takes two lists of the same length");
    PyObject *rest = NULL;
    /* Neither the lock of the interpreter nor the loop's thread is let go of: nothing can close one of the sockets. */
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(args[0]); i++) {
        char *data;
        Py_ssize_t size;
        long descriptor = PyLong_AsLong(PyList_GET_ITEM(args[1], i));
        if ((descriptor == -1 && PyErr_Occurred()) || PyBytes_AsStringAndSize(PyList_GET_ITEM(args[0], i), &data, &size) < 0)
            goto failed;
        Py_ssize_t sent = send((int)descriptor, data, (size_t)size, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent == size)
            continue;
        PyObject *one = Py_BuildValue("nn", i, sent < 0 ? (Py_ssize_t)0 : sent);
        if (one == NULL || (rest == NULL && (rest = PyList_New(0)) == NULL) || PyList_Append(rest, one) < 0) {
            Py_XDECREF(one);
            goto failed;
        }
        Py_DECREF(one);
    }
    return rest == NULL ? Py_NewRef(Py_None) : rest;
failed:
    Py_XDECREF(rest);
    return NULL;
}

static PyMethodDef methods[] = {{"send_all", (PyCFunction)(void (*)(void))send_all, METH_FASTCALL, doc}, {NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_native_write", NULL, -1, methods};

PyMODINIT_FUNC PyInit__native_write(void) { return PyModule_Create(&module); }
