# examples/containers: JSON by the standard library.
require 'json'

def worker(request)
  res = Response.new({ "method": request.method, "body": request.body }.to_json)
  res.headers["x-generated-by"] = "a worker"
  res
end
