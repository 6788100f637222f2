//! Python: WSGI, ASGI, packages, files, stores.

use wharf_tests::fixture::with_python;
use wharf_tests::http::{get, request};
use wharf_tests::network::Host;
use wharf_tests::project::Project;
use wharf_tests::wharf::{Wharf, text};

use super::body;

const WSGI: &str = "import os\n\n\
    def app(environ, start_response):\n    \
        start_response('201 Created', [('Content-Type', 'text/plain'), ('Set-Cookie', 'a=1'), ('Set-Cookie', 'b=2')])\n    \
        yield f\"{environ['SCRIPT_NAME']}|{environ['PATH_INFO']}|{os.environ['WORD']}|\".encode()\n    \
        yield environ['wsgi.input'].read()\n";

const ASGI: &str = "import asyncio\n\n\
    async def app(scope, receive, send):\n    \
        assert scope['type'] == 'http'\n    \
        await asyncio.gather(asyncio.sleep(0.01), asyncio.sleep(0.01))\n    \
        await send({'type': 'http.response.start', 'status': 200, 'headers': [(b'content-type', b'text/plain')]})\n    \
        await send({'type': 'http.response.body', 'body': scope['path'].encode(), 'more_body': True})\n    \
        await send({'type': 'http.response.body', 'body': b' done'})\n";

const STORE: &str = "from wharf import Response, kv\n\n\
    def worker(request):\n    \
        return Response(str(kv.open().increment('n')))\n";

const SQLITE: &str = "import sqlite3\nfrom wharf import Response\n\n\
    def worker(request):\n    \
        db = sqlite3.connect('/data/x.db', timeout=20)\n    \
        with db:\n        \
            db.execute('create table if not exists c (n integer)')\n        \
            db.execute('insert into c values (1)')\n    \
        return Response(str(db.execute('select count(*) from c').fetchone()[0]))\n";

#[test]
fn applications_of_wsgi_and_asgi_answer_for_their_paths() {
    let (kv, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let settings = format!(
        "[workers.\"wsgi/[...path]\"]\nenv = {{ WORD = \"word\" }}\n\
         [workers.count]\nkv = {{ default = {:?} }}\n\
         [workers.db]\nmounts = [{{ host = {:?}, guest = \"/data\", write = true }}]\n",
        text(kv.path()),
        text(data.path())
    );
    let project = Project::empty()
        .with("wsgi/[...path].py", WSGI)
        .with("asgi/[...path].py", ASGI)
        .with("count.py", STORE)
        .with("db.py", SQLITE)
        .with("lazy.py", "def worker(request):\n    import _late\n    return Response(_late.text + open('note.txt').read())\n")
        .with("_late.py", "text = 'late '\n")
        .with("note.txt", "note")
        .with("wharf.toml", settings);
    let wharf = with_python(Wharf::new());
    let server = wharf.serve(text(project.path()));
    let answer = request(&Host, &["--data", "body"], &server.at("/wsgi/a/b"));
    assert_eq!((answer.status, answer.body.as_str()), (201, "/wsgi|/a/b|word|body"));
    assert_eq!(answer.headers("set-cookie").collect::<Vec<_>>(), ["a=1", "b=2"]);
    assert_eq!(body(&server, "/asgi/x/y"), "/asgi/x/y done");
    assert_eq!([body(&server, "/count"), body(&server, "/count")], ["1", "2"]);
    assert_eq!(body(&server, "/lazy"), "late note");
    // Instances that write to one database at the same time: none loses what another wrote.
    let url = server.at("/db");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..5).for_each(|_| assert_eq!(get(&Host, &url).status, 200)));
        }
    });
    assert_eq!(body(&server, "/db"), "21");
}

#[test]
fn packages_are_installed_once_and_the_same_ones_from_then_on() {
    let project = Project::empty().with("requirements.txt", "bottle\nmarkupsafe\n").with(
        "[...path].py",
        "import bottle\nfrom markupsafe import escape\n\napp = bottle.Bottle()\n\n\
             @app.get('/hello/<name>')\ndef hello(name):\n    return f'hello {escape(name)}'\n",
    );
    let wharf = with_python(Wharf::new());
    let server = wharf.serve(text(project.path()));
    assert_eq!(body(&server, "/hello/%3Cada%3E"), "hello &lt;ada&gt;");
    assert_eq!(get(&Host, &server.at("/other")).status, 404);
    let lock = fs_err::read_to_string(project.path().join("wharf.lock")).unwrap();
    assert!(lock.contains("bottle==") && lock.contains("--hash=sha256:"), "{lock}");
    drop(server);
    wharf.run(&["build", text(project.path()), "-t", "localhost/x", "--sbom"]).succeeded();
    let blobs = fs_err::read_dir(wharf.store().join("blobs/sha256")).unwrap();
    let mut documents = blobs.filter_map(|blob| fs_err::read_to_string(blob.ok()?.path()).ok());
    assert!(documents.any(|text| text.contains("CycloneDX") && text.contains("pkg:pypi/bottle@")));
    // Another machine installs by the lock; a package of another hash is refused.
    let other = lock.replace("--hash=sha256:", "--hash=sha256:0000");
    fs_err::write(project.path().join("wharf.lock"), other).unwrap();
    let refused = with_python(Wharf::new()).run(&["build", text(project.path()), "-t", "localhost/x"]);
    let error = refused.refusal();
    assert!(error.contains("pip cannot install"), "{error}");
}

const ASK: &str = "import json\nimport urllib.request\n\nimport httpx\nimport requests\n\n\
    from wharf import Response\n\n\
    def worker(request):\n    \
        echo = f\"http://{request.headers['host']}/echo\"\n    \
        answers = []\n    \
        with urllib.request.urlopen(f'{echo}?a=1') as answer:\n        \
            answers.append(json.load(answer))\n    \
        answers.append(requests.post(echo, json={'a': 'ä'}, timeout=20).json())\n    \
        answers.append(httpx.put(echo, content=b'x' * 100_000).json())\n    \
        try:\n        \
            urllib.request.urlopen('http://127.0.0.1:1/')\n    \
        except urllib.error.URLError as error:\n        \
            answers.append(type(error.reason).__name__)\n    \
        return Response.json(answers)\n";

const ECHO: &str = "from wharf import Response\n\n\
    def worker(request):\n    \
        return Response.json([request.method, request.query, len(request.body), request.headers.get('content-type')])\n";

#[test]
fn requests_go_where_they_are_granted_by_any_of_pythons_clients() {
    let project = Project::empty()
        .with(
            "pyproject.toml",
            "[project]\nname = \"x\"\nversion = \"1\"\ndependencies = [\"requests\", \"httpx\"]\n",
        )
        .with("ask.py", ASK)
        .with("echo.py", ECHO)
        .with("wharf.toml", "[workers.ask]\noutbound = [\"http://127.0.0.1:*\"]\n");
    let wharf = with_python(Wharf::new());
    let server = wharf.serve(text(project.path()));
    let asked = get(&Host, &server.at("/ask"));
    assert_eq!(asked.status, 200, "{}", server.daemon.log());
    let expected = serde_json::json!([
        ["GET", "a=1", 0, null],
        ["POST", "", 15, "application/json"],
        ["PUT", "", 100_000, null],
        "ConnectionRefusedError"
    ]);
    assert_eq!(asked.json(), expected, "{}", server.daemon.log());
}

#[test]
fn what_cannot_be_built_is_said_in_a_line_with_what_to_do() {
    let wharf = with_python(Wharf::new());
    for (requirements, source, expected) in [
        (
            "",
            "import flask\n\ndef worker(request): pass\n",
            "index.py:1: no module named 'flask': add flask to requirements.txt",
        ),
        ("", "x = 1\n", "index.py: no "),
        ("numpy\n", "import numpy\n\ndef worker(request): pass\n", "needs compiled code"),
    ] {
        let project = Project::empty().with("index.py", source).with("requirements.txt", requirements);
        let error = wharf.run(&["build", text(project.path()), "-t", "localhost/x"]).refusal();
        assert!(error.contains("cannot build Python workers") && error.contains(expected), "{error}");
    }
}
