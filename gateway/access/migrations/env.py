"""Run the migrations on the caller's connection, in its transaction. Only Alembic imports this."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], transactional_ddl=True)
context.run_migrations()
