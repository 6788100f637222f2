# frozen_string_literal: true

# What programs ask of RubyGems once their gems are installed.
module Gem
  class LoadError < ::LoadError; end
  class MissingSpecError < LoadError; end

  autoload :Requirement, "rubygems/requirement"
  autoload :Version, "rubygems/version"

  def self.loaded_specs = {}
  def self.path = []
  def self.ruby_version = Version.new(RUBY_VERSION)
  def self.win_platform? = false
end

module Kernel
  private

  # The load path has one release of each gem.
  def gem(*) = false
end
