# The kit's poly.rb: a body that is not in UTF-8.
def worker(request)
  res = Response.new([0, 1, 254, 255].pack("C*"))
  res.headers["content-type"] = "application/octet-stream"
  res
end
