# languages/python.md, "Add a Key / Value store": values come back as text.
KEY = "counter"


def worker(request):
    count = Cache.get(KEY)
    if count is None:
        count = 0
    else:
        count = int(count)
    res = Response("The counter value is: {count}".format(count=count))
    Cache.set(KEY, count + 1)
    return res
