# languages/ruby.md, "Add a Key / Value store": values come back as text.
KEY = "counter"

def worker(request)
  count = Cache.get(KEY).to_i || 0
  body = "The counter value is: #{count}"
  count += 1
  Cache.set(KEY, count)
  Response.new(body)
end
