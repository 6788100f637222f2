# features/mount-folders.md: two folders.
def worker(request):
    with open("/mnt/assets/page.html") as page, open("/mnt/libs/greeting.py") as library:
        return Response(page.read() + library.readline())
