# Ours: a header may have several values.
def worker(request)
  res = Response.new("two cookies")
  res.headers["set-cookie"] = ["a=1", "b=2; Path=/"]
  res
end
