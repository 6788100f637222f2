# languages/python.md, "Python libraries": a mounted folder on PYTHONPATH.
from greeting import hello


def worker(req):
    res = Response(hello("<you>"))
    res.headers["x-generated-by"] = "a library"
    return res
