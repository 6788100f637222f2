# Ours: a body that is no UTF-8 arrives as bytes (wws: as an empty text).
def worker(request):
    return Response(request.body)
