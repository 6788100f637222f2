# languages/python.md, "Read environment variables".
import os


def worker(req):
    return Response("The environment variable value is: {message}; {token}".format(
        message=os.getenv("MESSAGE"), token=os.getenv("TOKEN")))
