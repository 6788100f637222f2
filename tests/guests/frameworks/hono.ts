import { Hono } from 'hono';
import { logger } from 'hono/logger';
import { streamText } from 'hono/streaming';

const app = new Hono().basePath('/hono');
app.use(logger());
app.get('/hello/:name', (c) => c.json({ hello: c.req.param('name'), q: c.req.query('q') }));
app.post('/json', async (c) => c.json(await c.req.json(), 201));
app.post('/upload', async (c) => {
  const { file, word } = await c.req.parseBody();
  return c.text(`${(file as File).name} ${(file as File).size} ${word}`);
});
app.get('/stream', (c) =>
  streamText(c, async (stream) => {
    for (let i = 0; i < 3; i++) {
      await stream.write(`${i};`);
      await stream.sleep(1);
    }
  }),
);
app.get('/fail', () => {
  throw new RangeError('asked to');
});
export default app;
