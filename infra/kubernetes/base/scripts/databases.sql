-- Run once, by PostgreSQL's image, when its volume is empty. The tables in them belong to Prefect and MLflow.
CREATE DATABASE prefect;
CREATE DATABASE mlflow;
CREATE DATABASE mlflow_users;
