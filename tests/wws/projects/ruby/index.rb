# languages/ruby.md, "Your first Ruby worker": a page about the request.
def worker(req)
  body = %{
    <!DOCTYPE html>
    <body>
    <h1>A worker in Ruby</h1>
    <p>Replying to #{req.url}</p>
    <p>Method: #{req.method}</p>
    <p>User Agent: #{req.headers["user-agent"]}</p>
    <p>Payload: #{req.body || "-"}</p>
    </body>
  }
  res = Response.new(body)
  res.headers["x-generated-by"] = "a worker"
  res
end
