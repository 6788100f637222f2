# examples/protomaps: folders are relative to the worker's own, and on sys.path by code.
import sys
sys.path.append("/src/libs")

from greeting import hello


def worker(request):
    with open("/src/assets/page.html") as page:
        return Response("{} {}".format(hello(request.params["z"] + request.params["x"]), page.read()))
