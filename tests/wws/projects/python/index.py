# languages/python.md, "Your first Python worker": a page about the request.
def worker(req):
    body = '''\
        <!DOCTYPE html>
        <body>
        <h1>A worker in Python</h1>
        <p>Replying to {url}</p>
        <p>Method: {method}</p>
        <p>User Agent: {agent}</p>
        <p>Payload: {body}</p>
        </body>
    '''.format(url=req.url, method=req.method, agent=req.headers["user-agent"], body=req.body)
    res = Response(body)
    res.headers["x-generated-by"] = "a worker"
    return res
