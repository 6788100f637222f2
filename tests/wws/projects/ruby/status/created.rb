# The kit's poly.rb, which languages/ruby.md refers to: answers by name.
def worker(request)
  Response.created("made")
end
