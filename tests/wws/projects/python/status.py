# The kit's poly.py, which languages/python.md refers to: the status is an attribute.
def worker(req):
    res = Response("nothing here")
    res.status_code = 404
    return res
