from wharf import Response


def worker(request):
    return Response(f"hello {request.args.get('name', 'world')}\n")
