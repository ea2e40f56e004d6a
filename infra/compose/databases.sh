#!/bin/sh
# PostgreSQL's image runs this once, on new data: the roles and databases of Prefect and MLflow.
set -eu
psql --username postgres --set ON_ERROR_STOP=1 <<'SQL'
\getenv prefect PREFECT_DATABASE_PASSWORD
\getenv mlflow MLFLOW_DATABASE_PASSWORD
create role prefect login password :'prefect';
create role mlflow login password :'mlflow';
create database prefect owner prefect;
create database mlflow owner mlflow;
create database mlflow_users owner mlflow;
SQL
