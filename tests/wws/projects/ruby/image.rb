# examples/ruby-mount: a mounted file, read as bytes.
def worker(request)
  image = IO.read("/src/images/dot.svg", mode: "rb")
  res = Response.new(image)
  res.headers["Content-Type"] = "image/svg+xml"
  res
end
