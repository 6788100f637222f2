import { AutoRouter } from 'itty-router';

const router = AutoRouter({ base: '/itty' });
router
  .get('/hello/:name', ({ name, query }) => ({ hello: name, q: query.q }))
  .post('/json', async (request) => Response.json(await request.json(), { status: 201 }))
  .get('/fail', () => {
    throw new RangeError('asked to');
  });
export default router;
