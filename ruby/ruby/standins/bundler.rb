# frozen_string_literal: true

# Bundler's part that programs call when they start.
module Bundler
  # Reads a Gemfile: which gems to require.
  class Gemfile
    attr_reader :gems

    def initialize(path)
      @gems = []
      @groups = [:default]
      instance_eval(File.read(path), path)
    end

    def gem(name, *, **options)
      groups = Array(options[:group] || options[:groups] || @groups)
      @gems << [name, options.fetch(:require, name), groups.map(&:to_sym)]
    end

    def group(*names, **)
      before, @groups = @groups, names
      yield
    ensure
      @groups = before
    end

    def respond_to_missing?(*) = true

    # source, ruby, platforms, git, path, …
    def method_missing(*, **)
      yield if block_given?
    end
  end

  def self.setup(*) = nil

  def self.require(*groups)
    groups = groups.empty? ? [:default] : groups.map(&:to_sym)
    Gemfile.new("Gemfile").gems.each do |name, features, of|
      next if (of & groups).empty? || !features
      features == name ? require_gem(name) : Array(features).each { |feature| Kernel.require(feature) }
    end
  end

  def self.require_gem(name)
    Kernel.require(name)
  rescue LoadError => error
    raise unless error.path == name
    begin
      Kernel.require(name.tr("-", "/"))
    rescue LoadError
      # It has no file of its name, as rack-protection once had not.
    end
  end
  private_class_method :require_gem
end
