from flask import Flask, request, session

app = Flask(__name__)
app.secret_key = "secret"


@app.get("/flask/hello/<name>")
def hello(name):
    session["name"] = name
    return {"hello": name, "q": request.args.get("q")}


@app.get("/flask/session")
def remembered():
    return session.get("name", "nobody")


@app.post("/flask/json")
def echo():
    return request.get_json(), 201


@app.post("/flask/upload")
def upload():
    file = request.files["file"]
    return f"{file.filename} {len(file.read())} {request.form['word']}"


@app.get("/flask/stream")
def stream():
    return app.response_class((f"{i};" for i in range(3)), mimetype="text/plain")


@app.get("/flask/fail")
def fail():
    raise ValueError("asked to")
