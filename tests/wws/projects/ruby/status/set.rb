# The kit's poly.rb: status and headers as arguments, and the status set later.
def worker(request)
  res = Response.new("short and stout", 200, { "content-type" => "text/plain" })
  res.status_code = 418
  res
end
