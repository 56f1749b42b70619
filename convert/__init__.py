from caffe_models.telemetry import switch_off

switch_off()
