# The kit's poly.rb.
def worker(request)
  Response.not_found("nothing here")
end
