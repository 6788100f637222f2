# features/key-value.md: another namespace is another store.
def worker(request):
    return Response("visits: {}".format(Cache.get("visits")))
