//! Ruby: `def worker(request)` and Rack.

use wharf_tests::fixture::{Tools, with_tools};
use wharf_tests::http::{get, request};
use wharf_tests::network::Host;
use wharf_tests::project::Project;
use wharf_tests::wharf::{Wharf, text};

use super::body;

const WORKER: &str = "require 'json'\nrequire 'securerandom'\nrequire_relative '../lib/_greet'\n\n\
    def worker(request)\n  \
      if request.method == 'POST'\n    \
        return Response.new(request.body.reverse, 201)\n  \
      end\n  \
      raise ArgumentError, 'asked to' if request.params['name'] == 'fail'\n  \
      Response.new(JSON.dump({ text: greet(request.params['name']), word: ENV['WORD'], random: SecureRandom.hex }))\n\
    end\n";

const RACK: &str = "count = 0\n\
    run lambda { |env|\n  \
      count += 1\n  \
      body = [env['SCRIPT_NAME'], env['PATH_INFO'], env['rack.input'].read, count].join('|')\n  \
      [202, { 'content-type' => 'text/plain', 'set-cookie' => %w[a=1 b=2] }, [body]]\n\
    }\n";

const COUNTER: &str =
    "def worker(request)\n  Response.new(Wharf::KV.open('default').increment('n').to_s)\nend\n";

fn wharf() -> Wharf {
    with_tools(Wharf::new(), Tools::Ruby)
}

#[test]
fn workers_and_rack_applications_share_a_ruby_that_has_started() {
    let kv = tempfile::tempdir().unwrap();
    let settings = format!(
        "[workers.\"api/[name]\"]\nenv = {{ WORD = \"there\" }}\n[workers.count]\nkv = {{ default = {:?} }}\n",
        text(kv.path())
    );
    let project = Project::empty()
        .with("api/[name].rb", WORKER)
        .with("lib/_greet.rb", "def greet(name) = \"hello #{name}\"\n")
        .with("rack/config.ru", RACK)
        .with("count.rb", COUNTER)
        .with("wharf.toml", settings);
    let wharf = wharf();
    let server = wharf.serve(text(project.path()));
    let hello = || get(&Host, &server.at("/api/ada")).json();
    let first = hello();
    assert_eq!((&first["text"], &first["word"]), (&"hello ada".into(), &"there".into()));
    assert_ne!(hello()["random"], first["random"], "each instance has a chance of its own");
    let posted = request(&Host, &["--data", "abc"], &server.at("/api/x"));
    assert_eq!((posted.status, posted.body.as_str()), (201, "cba"));
    for _ in 0..2 {
        let rack = request(&Host, &["--data", "in"], &server.at("/rack/a/b"));
        assert_eq!((rack.status, rack.body.as_str()), (202, "/rack|/a/b|in|1"));
        assert_eq!(rack.headers("set-cookie").collect::<Vec<_>>(), ["a=1", "b=2"]);
    }
    assert_eq!([body(&server, "/count"), body(&server, "/count")], ["1", "2"]);
    assert_eq!(get(&Host, &server.at("/api/fail")).status, 500);
    let log = server.daemon.log();
    assert!(log.contains("asked to") && log.contains("api/[name].rb:9"), "{log}");
    // The same bytes, from the cache and without it.
    let digest = wharf.build(project.path(), "localhost/ruby:1");
    assert_eq!(wharf.build(project.path(), "localhost/ruby:2"), digest);
    assert_eq!(with_tools(Wharf::new(), Tools::Ruby).build(project.path(), "localhost/ruby:3"), digest);
}

#[test]
fn what_cannot_be_loaded_is_said_with_its_place_and_what_to_do() {
    let wharf = wharf();
    for (source, expected, hint) in [
        ("def worker(\n", "index.rb:", ""),
        ("\nrequire 'sinatra'\n", "index.rb:2: cannot load such file -- sinatra", "bundle add sinatra"),
        ("x = 1\n", "worker", ""),
    ] {
        let project = Project::empty().with("index.rb", source);
        let error = wharf.run(&["build", text(project.path()), "-t", "localhost/x"]).refusal();
        assert!(error.contains("cannot build Ruby workers") && error.contains(expected), "{error}");
        assert!(error.contains(hint), "{error}");
    }
}
