//! JavaScript and TypeScript: fetch handlers, packages, errors with places.

use std::process::Command;

use serde_json::json;
use wharf_tests::fixture::{Tools, with_tools};
use wharf_tests::http::{get, request};
use wharf_tests::network::Host;
use wharf_tests::process::run;
use wharf_tests::project::Project;
use wharf_tests::wharf::{Server, Wharf, text};

use super::body;

fn wharf() -> Wharf {
    with_tools(Wharf::new(), Tools::JavaScript)
}

const TYPESCRIPT: &str = "import { greet } from '../lib/_greet';\n\
    interface Env { WORD: string }\n\
    export default {\n  \
      async fetch(request: Request, env: Env, ctx: any): Promise<Response> {\n    \
        const { name } = ctx.params;\n    \
        if (request.method === 'POST') {\n      \
          const headers = new Headers([['set-cookie', 'a=1'], ['set-cookie', 'b=2']]);\n      \
          return new Response(await request.arrayBuffer(), { status: 201, headers });\n    \
        }\n    \
        return Response.json({ text: greet(name), word: env.WORD, random: crypto.randomUUID() });\n  \
      },\n\
    };\n";

/// What a form holds: names, and the bytes or the text.
const FORM: &str = "export default async (request) => {\n  \
    try {\n    \
      const entries = [...await request.formData()].map(async ([name, value]) => typeof value === 'string'\n      \
        ? [name, value]\n      \
        : [name, value.name, value.type, [...new Uint8Array(await value.arrayBuffer())]]);\n    \
      return Response.json(await Promise.all(entries));\n  \
    } catch (error) {\n    \
      return new Response(`${error}`, { status: 400 });\n  \
    }\n\
  };\n";

#[test]
fn workers_in_all_forms_share_a_component_and_not_their_state() {
    let kv = tempfile::tempdir().unwrap();
    let project = Project::empty()
        .with("api/[name].ts", TYPESCRIPT)
        .with("lib/_greet.ts", "export function greet(name: string) {\n  return `hello ${name}`;\n}\n")
        .with("fn.js", "let count = 0;\nexport default () => new Response(String(++count));\n")
        .with(
            "listen.mjs",
            "addEventListener('fetch', (event) => event.respondWith(new Response('listens')));\n",
        )
        .with("package.json", "{\"dependencies\":{\"shout\":\"1.0.0\"}}")
        .with("node_modules/shout/package.json", "{\"name\":\"shout\",\"main\":\"index.js\"}")
        .with("node_modules/shout/index.js", "module.exports = (text) => text.toUpperCase();\n")
        .with("shout.js", "import shout from 'shout';\nexport default () => new Response(shout('hello'));\n")
        .with("form.js", FORM)
        .with(
            "stream.js",
            "export default () => new Response(new ReadableStream({\n  \
               async start(c) {\n    \
                 for (let i = 0; i < 3; i++) { c.enqueue(new TextEncoder().encode(`${i};`)); \
                   await new Promise((r) => setTimeout(r, 20)); }\n    \
                 c.close();\n  } }));\n",
        )
        .with(
            "count.js",
            "export default async (request, env) => new Response(String(await env.KV.increment('n')));\n",
        )
        .with(
            "wharf.toml",
            format!(
                "[workers.\"api/[name]\"]\nenv = {{ WORD = \"there\" }}\n\
                 [workers.count]\nkv = {{ default = {:?} }}\n",
                text(kv.path())
            ),
        );
    let wharf = wharf();
    let server = wharf.serve(text(project.path()));
    let hello = || get(&Host, &server.at("/api/ada")).json();
    let first = hello();
    assert_eq!((&first["text"], &first["word"]), (&"hello ada".into(), &"there".into()));
    assert_ne!(hello()["random"], first["random"], "each instance has a chance of its own");
    for _ in 0..2 {
        assert_eq!(body(&server, "/fn"), "1", "nothing of one request is seen by the next");
    }
    assert_eq!(body(&server, "/listen"), "listens");
    assert_eq!(body(&server, "/shout"), "HELLO");
    assert_eq!(body(&server, "/stream"), "0;1;2;");
    assert_eq!([body(&server, "/count"), body(&server, "/count")], ["1", "2"]);
    let posted = request(&Host, &["--data-binary", "\u{1}\u{7f}x"], &server.at("/api/x"));
    assert_eq!((posted.status, posted.body.as_str()), (201, "\u{1}\u{7f}x"));
    assert_eq!(posted.headers("set-cookie").collect::<Vec<_>>(), ["a=1", "b=2"]);
    forms_are_read(&server);
    let digest = wharf.build(project.path(), "localhost/js:1");
    assert_eq!(wharf.build(project.path(), "localhost/js:2"), digest, "unchanged: from the cache");
}

/// All bytes come as they were sent, and what is no form is said to be none.
#[track_caller]
fn forms_are_read(server: &Server) {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let file = folder.path().join("all.bin");
    let mut bytes: Vec<u8> = (0..=255).collect();
    bytes.extend_from_slice(b"\r\n--\r\n\r\n");
    fs_err::write(&file, &bytes).expect("a file can be written");
    let sent = ["-F", "a \"b=\u{e4}", "-F", &format!("file=@{};filename=x.bin", text(&file)), "-F", "empty="];
    let form = request(&Host, &sent, &server.at("/form"));
    let expected =
        json!([["a \"b", "\u{e4}"], ["file", "x.bin", "application/octet-stream", bytes], ["empty", ""]]);
    assert_eq!(form.json(), expected);
    let form = request(&Host, &["--data", "a=1&a=%20"], &server.at("/form"));
    assert_eq!(form.json(), json!([["a", "1"], ["a", " "]]));
    for (content_type, body, expected) in [
        ("multipart/form-data", "--x", "no boundary"),
        ("multipart/form-data; boundary=x", "", "does not begin with the boundary"),
        ("multipart/form-data; boundary=x", "--xy\r\n\r\n", "not followed by a line break"),
        ("multipart/form-data; boundary=x", "--x\r\nname: a\r\n\r\nb", "ends in the middle"),
        ("multipart/form-data; boundary=x", "--x\r\nname: a\r\n\r\nb\r\n--x--", "has no name"),
    ] {
        let sent = ["-H", &format!("content-type: {content_type}"), "--data-binary", body];
        let refused = request(&Host, &sent, &server.at("/form"));
        assert_eq!(refused.status, 400, "{body:?}: {refused:?}");
        assert!(refused.body.starts_with("TypeError: cannot read the form: "), "{refused:?}");
        assert!(refused.body.contains(expected), "{body:?}: {refused:?}");
    }
}

#[test]
fn an_error_of_a_handler_is_told_by_the_users_file_and_line() {
    let project = Project::empty()
        .with("api/x.ts", "import { fail } from '../lib/_fail';\nexport default () => fail();\n")
        .with("lib/_fail.ts", "type Never = never;\n\nexport function fail(): Never {\n  throw new RangeError('asked to');\n}\n")
        .with("api/wrong.js", "export default () => 'no response';\n");
    let wharf = wharf();
    let server = wharf.serve(text(project.path()));
    let error = get(&Host, &server.at("/api/x"));
    assert_eq!(error.status, 500);
    assert!(!error.body.contains("asked to"), "{}", error.body);
    let log = server.daemon.log();
    assert!(log.contains("RangeError: asked to") && log.contains("lib/_fail.ts:4:"), "{log}");
    assert_eq!(get(&Host, &server.at("/api/wrong")).status, 500);
    let log = server.daemon.log();
    assert!(log.contains("api/wrong.js: the handler gave a string: expected a Response"), "{log}");
}

#[test]
fn what_cannot_be_built_is_said_in_a_line_with_what_to_do() {
    let wharf = wharf();
    for (source, expected, hint) in [
        ("export default {\n  fetch( {\n", "api/x.js:", ""),
        (
            "import x from 'nowhere';\nexport default () => x;\n",
            "api/x.js:1:15: error: cannot find package \"nowhere\"",
            "hint: npm install nowhere",
        ),
        (
            "import fs from 'node:fs';\nexport default () => fs;\n",
            "it is a module of Node.js",
            "hint: use what the web has",
        ),
        ("export const x = 1;\n", "api/x.js:1:1: error: no handler found", ""),
        (
            "\nthrow new Error('at the top');\n",
            "api/x.js:2:",
            "hint: the top level runs when the worker is built",
        ),
    ] {
        let project = Project::empty().with("api/x.js", source);
        let error = wharf.run(&["build", text(project.path()), "-t", "localhost/x"]).refusal();
        assert!(error.contains("cannot build JavaScript workers") && error.contains(expected), "{error}");
        assert!(error.contains(hint), "{error}");
    }
}

#[test]
fn a_project_from_elsewhere_reads_no_file_beside_it() {
    let wharf = wharf();
    let secret = wharf.scratch().join("secret.json");
    fs_err::write(&secret, "{\"secret\":1}").unwrap();
    let source =
        format!("import secret from {:?};\nexport default () => Response.json(secret);\n", text(&secret));
    let repository = Project::empty().with("x.js", source);
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        git.arg("-C").arg(repository.path()).args(["-c", "user.name=T", "-c", "user.email=t@example.test"]);
        run(git.args(arguments)).succeeded();
    };
    git(&["init", "--quiet"]);
    git(&["add", "."]);
    git(&["commit", "--quiet", "--message", "one"]);
    let url = format!("file://{}", text(repository.path()));
    let error = wharf.run(&["serve", &url]).refusal();
    assert!(error.contains("expected a file of the project, which is from elsewhere"), "{error}");
    let server = wharf.serve_with(&url, &["--trust"]);
    assert_eq!(body(&server, "/x"), "{\"secret\":1}");
}
