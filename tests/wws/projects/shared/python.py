# examples/containers: workers in several languages count in one namespace.
def worker(request):
    visits = int(Cache.get("visits") or "0") + 1
    Cache.set("visits", visits)
    return Response(f"Python {visits}")
