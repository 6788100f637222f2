# frozen_string_literal: true

require "json"

# Where entries, visits and files are kept: the key-value store `default`, which wharf.toml
# grants. `entries` and `visits` are counters, `entry/1` and `file/NAME` the rest.
class Store
  # Opened in a request: there is no store while the program is built.
  def initialize = @kv = Wharf::KV.open("default")

  # Adds an entry.
  def add(name:, text:)
    # No two requests get the same number: the store counts in one step.
    id = @kv.increment("entries")
    entry = { id:, name:, text: }
    @kv.set("entry/#{id}", JSON.generate(entry))
    entry
  end

  # All entries, oldest first. One that is being added has its number before it is there.
  def entries = (1..@kv.get("entries").to_i).filter_map { |id| entry(id) }

  # The entry, or nil.
  def entry(id) = @kv.get("entry/#{id}")&.then { |json| JSON.parse(json, symbolize_names: true) }

  def visits = @kv.get("visits").to_i
  def visit! = @kv.increment("visits")

  def file(name) = @kv.get("file/#{name}")
  def put_file(name, content) = @kv.set("file/#{name}", content)
end
