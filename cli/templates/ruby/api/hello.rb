require "uri"

def worker(request)
  name = URI.decode_www_form(request.query).to_h.fetch("name", "world")
  Response.new("hello #{name}\n", 200, { "content-type" => "text/plain" })
end
