# languages/ruby.md, "Read environment variables".
def worker(request)
  Response.new("The environment variable value is: #{ENV.fetch('MESSAGE')}; #{ENV.fetch('TOKEN')}")
end
