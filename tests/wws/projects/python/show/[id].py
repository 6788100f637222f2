# languages/python.md, "Dynamic routes".
def worker(request):
    return Response("The URL parameter is: {param}".format(param=request.params['id']))
