# examples/containers: workers in several languages count in one namespace.
def worker(request)
  visits = Cache.get("visits").to_i + 1
  Cache.set("visits", visits)
  Response.new("Ruby #{visits}")
end
