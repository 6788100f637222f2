# languages/ruby.md, "Dynamic routes".
def worker(request)
  Response.new("The URL parameter is: #{request.params['id']}")
end
