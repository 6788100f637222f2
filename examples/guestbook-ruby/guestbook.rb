# frozen_string_literal: true

require "erb"
require "json"
require "uri"
require_relative "store"

# The guestbook: a Rack application, with an instance a request.
class Guestbook
  # What was sent is no entry; the message says why.
  class Invalid < StandardError; end

  MOST = { name: 100, text: 1000 }.freeze
  FILE_NAME = /\A[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}\z/

  # By path, then by method. What the groups match is given to the handler.
  ROUTES = {
    %r{\A/entries\z} => { "GET" => :page, "POST" => :sign },
    %r{\A/api/entries\z} => { "GET" => :list, "POST" => :create },
    %r{\A/api/entries/([^/]+)\z} => { "GET" => :show },
    %r{\A/visits\z} => { "GET" => :visits, "POST" => :visit },
    %r{\A/files/([^/]+)\z} => { "GET" => :file, "PUT" => :put_file }
  }.freeze

  PAGE = ERB.new(<<~HTML, trim_mode: "-")
    <!doctype html>
    <html lang="en">
    <meta charset="utf-8">
    <title>Guestbook</title>
    <h1>Guestbook</h1>
    <ul>
    <%- entries.each do |entry| -%>
    <li><b><%= ERB::Util.h(entry[:name]) %></b> <%= ERB::Util.h(entry[:text]) %></li>
    <%- end -%>
    </ul>
    <p><a href="/">Sign it</a></p>
    </html>
  HTML

  def self.call(env) = new(env).answer

  def initialize(env)
    @env = env
    @store = Store.new
  end

  def answer
    ROUTES.each do |pattern, handlers|
      match = pattern.match(@env["PATH_INFO"]) or next
      # The server leaves the body of an answer to HEAD away.
      handler = handlers[@env["REQUEST_METHOD"].sub("HEAD", "GET")]
      return send(handler, *match.captures) if handler

      return text(405, "method not allowed\n", "allow" => ["HEAD", *handlers.keys].join(", "))
    end
    text(404, "not found\n")
  end

  private

  def page
    [200, { "content-type" => "text/html; charset=utf-8" }, [PAGE.result_with_hash(entries: @store.entries)]]
  end

  def sign
    form = URI.decode_www_form(body).to_h
    @store.add(**checked(form))
    [303, { "location" => "/entries" }, []]
  rescue Invalid, ArgumentError => error # ArgumentError: no form
    text(400, error.message)
  end

  def list = json(200, @store.entries)

  def create
    entry = @store.add(**checked(fields))
    json(201, entry, "location" => "/api/entries/#{entry[:id]}")
  rescue Invalid => error
    json(400, { error: error.message })
  end

  def show(id)
    entry = @store.entry(id) if id.match?(/\A[1-9][0-9]{0,15}\z/)
    entry ? json(200, entry) : json(404, { error: "no such entry" })
  end

  def visits = text(200, @store.visits.to_s)
  def visit = text(200, @store.visit!.to_s)

  def file(name)
    content = @store.file(name) if name.match?(FILE_NAME)
    return text(404, "no such file\n") unless content

    # Whatever it says it is: no browser shows it as a page of this site.
    [200, { "content-type" => "application/octet-stream", "x-content-type-options" => "nosniff" }, [content]]
  end

  def put_file(name)
    unless name.match?(FILE_NAME)
      return text(400, "name: expected at most 100 of A-Z a-z 0-9 . _ -, no dot in front")
    end

    @store.put_file(name, body)
    [204, {}, []]
  end

  def body = @env["rack.input"]&.read.to_s

  # The object that was sent as JSON.
  def fields
    value = JSON.parse(body.force_encoding(Encoding::UTF_8))
    raise Invalid, "expected a JSON object with the texts name and text" unless value.is_a?(Hash)

    value
  rescue JSON::ParserError, JSON::NestingError, EncodingError
    raise Invalid, "expected a JSON object with the texts name and text"
  end

  # The texts of an entry, without white space around them.
  def checked(fields)
    MOST.to_h do |field, most|
      value = fields[field.to_s]
      value = value.is_a?(String) ? value.scrub.strip : ""
      raise Invalid, "#{field}: expected a text" if value.empty?
      raise Invalid, "#{field}: expected at most #{most} characters" if value.length > most

      [field, value]
    end
  end

  def text(status, body, headers = {})
    [status, { "content-type" => "text/plain; charset=utf-8", **headers }, [body]]
  end

  def json(status, value, headers = {})
    [status, { "content-type" => "application/json", **headers }, [JSON.generate(value)]]
  end
end
