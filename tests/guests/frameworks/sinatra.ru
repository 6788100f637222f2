require "json"
require "sinatra/base"

class App < Sinatra::Base
  set :environment, :production
  enable :sessions
  set :session_secret, "s" * 64

  get "/hello/:name" do
    session[:name] = params["name"]
    content_type :json
    JSON.dump(hello: params["name"], q: params["q"])
  end

  get("/session") { session.fetch(:name, "nobody") }

  post "/json" do
    content_type :json
    [201, JSON.dump(JSON.parse(request.body.read))]
  end

  post "/upload" do
    file = params["file"]
    "#{file["filename"]} #{file["tempfile"].read.size} #{params["word"]}"
  end

  get "/stream" do
    stream { |out| 3.times { |i| out << "#{i};" } }
  end

  get("/fail") { raise ArgumentError, "asked to" }
end

run App
